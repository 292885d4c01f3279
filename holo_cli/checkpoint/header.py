"""What a checkpoint says about itself: enough to rebuild the model and its text side anywhere.

The header is JSON in the safetensors metadata under the key "holo". It is read from files that
anybody may have made, so `from_json` trusts nothing: each fault becomes one sentence.
JSON has no NaN and no infinity: figures that are not finite are stored as null.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from holo_cli.checkpoint.find import Kind
from holo_cli.config.model_schema import ModelConfig
from holo_cli.errors import CheckpointError
from holo_cli.parsing import ParseError, parse_json
from holo_cli.printable import one_line
from holo_cli.wording import counted

C = TypeVar("C", bound=ModelConfig)
FORMAT_VERSION = 2  # 2: parameters renamed, see renames.py
METADATA_KEY = "holo"


def printable(text: str, limit: int = 300) -> str:
    """Text out of a file that nobody vouches for, cut to a length and on one line."""
    return one_line(text if len(text) <= limit else text[:limit] + "…")


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a file that is, or claims to be, a checkpoint and cannot be one."""
    return CheckpointError(
        f"The checkpoint {path} is damaged: {printable(what)}.",
        next_step="Copy it again from where it came, or use the run's other file (_best or _last).",
    )


def complaint(error: ValidationError) -> str:
    """The first thing pydantic found wrong, as `key.path: reason`, without its links and jargon.

    "Extra inputs are not permitted" is said as what it means here: an unknown key.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"the key '{key}' is unknown to this version of holo"
    if first["type"] == "missing":
        return f"the key '{key}' is missing"
    return f"'{key}': {reason}" if key else reason


def library_versions() -> dict[str, str]:
    """The versions of holo, torch and Python that write a checkpoint. Imports none of them."""
    found = {"python": platform.python_version()}
    for name, package in {"holo": "holo-cli", "torch": "torch"}.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:  # run from a source tree that was never installed
            found[name] = "source"
    return found


class Losses(BaseModel):
    """Nats per token (`bpb`: bits per byte) at the moment of saving; None where not measured."""

    train: float | None = None
    val: float | None = None
    bpb: float | None = None
    best_val: float | None = None


class DataInfo(BaseModel):
    """The prepared set that was trained on: documents and languages are counts."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    path: str = ""
    fingerprint: str = ""
    documents: int | dict[str, int] = 0
    languages: dict[str, Any] = Field(default_factory=dict)
    markers: bool = False


class Origin(BaseModel):
    """A checkpoint whose weights another run started from."""

    model_config = ConfigDict(extra="allow")

    run: str = ""
    step: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    val_loss: float | None = None
    data: str = ""
    created: str = ""


class StageRow(BaseModel):
    """One stage of growth that was begun: from this step on the model had so many blocks."""

    model_config = ConfigDict(extra="allow")

    stage: int = Field(1, ge=1)
    step: int = Field(0, ge=0)
    layers: int = Field(ge=1)


class Header(BaseModel):
    """Everything in a checkpoint that is not a tensor.

    `model`, `config` (sections `model`, `training`, `data`), `preset`, `recipe` and `provenance`
    are those of `Resolved.to_dict()`, and `Resolved.from_dict` reads them back; `tokenizer` is
    `Tokenizer.to_dict()`; `state` is the part of the training state that is not tensors (data
    position and the like) and empty in files of weights; `shared` maps a tensor's further names
    to the one it is stored under, and is filled in by `save`. `stages` is empty for a model that
    does not grow; else its last row has the depth of the weights here (see `at_depth`).
    """

    format: int = FORMAT_VERSION
    model: str
    needs: dict[str, str] = Field(
        default_factory=dict,
        description="where a model from outside comes from: file and class, or package and version",
    )
    config: dict[str, Any]
    preset: str | None = None
    recipe: str = "modern"
    provenance: dict[str, str] = Field(default_factory=dict)
    tokenizer: dict[str, Any]
    step: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    losses: Losses = Field(default_factory=Losses)
    data: DataInfo = Field(default_factory=DataInfo)
    run: str = ""
    kind: Kind = "weights"
    history: list[dict[str, Any]] = Field(default_factory=list)
    stages: list[StageRow] = Field(default_factory=list)
    origins: list[Origin] = Field(
        default_factory=list, description="what the run's weights started from, oldest first"
    )
    state: dict[str, Any] = Field(default_factory=dict)
    shared: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=library_versions)
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="moment of saving, ISO 8601, UTC",
    )

    @field_validator("config")
    @classmethod
    def _config_describes_a_model(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("model"), dict):
            raise ValueError("there is no section 'model'")
        return config

    def at_depth(self, config: C) -> C:
        """The header's model config with the depth of the weights: `config.model` has the full one.

        Raises ValueError for a depth that the config does not reach.
        """
        if not self.stages:
            return config
        layers = self.stages[-1].layers
        if layers > config.layers:
            raise ValueError(f"grown to {counted(layers, 'layer')}, beyond its {config.layers}")
        return config.at_depth(layers)

    def to_json(self) -> str:
        """The header as one line of JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, path: Path) -> Header:
        """Read a header found in `path`. Raises CheckpointError for anything that is not one."""
        try:
            found = parse_json(text)
        except ParseError as error:
            raise damaged(path, f"its header is {error}") from error
        return cls.from_dict(found, path)

    @classmethod
    def from_dict(cls, found: Any, path: Path) -> Header:
        """Check a header that is already parsed. Raises CheckpointError."""
        number = found.get("format") if isinstance(found, dict) else None
        if type(number) is not int:
            raise damaged(path, "its header names no format version")
        if number > FORMAT_VERSION:
            raise CheckpointError(
                f"The checkpoint {path} was written by a newer holo (format {number}, "
                f"this one reads up to {FORMAT_VERSION}).",
                next_step="Update holo: pip install --upgrade holo-cli",
            )
        if number < 1:
            raise damaged(path, f"there is no format {number}")
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise damaged(path, f"in its header {complaint(error)}") from error

    def weights_only(self) -> Header:
        """The header for a new file of the same model without its training state."""
        changes = {"format": FORMAT_VERSION, "kind": "weights", "state": {}}
        return self.model_copy(update=changes)
