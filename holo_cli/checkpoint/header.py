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
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from holo_cli.checkpoint.find import Kind, check_run_name
from holo_cli.config.model_schema import ModelConfig
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.errors import CheckpointError, UsageError
from holo_cli.parsing import ParseError, parse_json
from holo_cli.printable import one_line
from holo_cli.wording import counted

C = TypeVar("C", bound=ModelConfig)
FORMAT_VERSION = 2  # 2: parameters renamed, see renames.py
CHAT_VERSION = 1
PARTS_FORMAT = 3  # an index of a checkpoint in parts, see parts.py; the newest that is read
MAX_COUNT = 2**62  # of steps, tokens and the like: their sums and products stay whole numbers

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Name = Annotated[str, Field(max_length=1000)]


def short_line(text: str, limit: int = 300) -> str:
    """Text from an untrusted file, cut to a length and on one line."""
    return one_line(text if len(text) <= limit else text[:limit] + "…")


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a file that is, or claims to be, a checkpoint and cannot be one."""
    return CheckpointError(
        f"The checkpoint {path} is damaged: {short_line(what)}.",
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


class ChatFormat(BaseModel):
    """The special tokens of the chat format that a model was trained with: the marks before the
    texts of each role, and the end of an answer (data/chat_format.py)."""

    model_config = ConfigDict(extra="allow")

    version: int = Field(default=1, ge=1)
    system: Name = MARK_NAMES[0]
    user: Name = MARK_NAMES[1]
    assistant: Name = MARK_NAMES[2]
    end: Name = "<|end|>"


class SetInfo(BaseModel):
    """One of several sets that were trained on together; the weights have the sum 1."""

    model_config = ConfigDict(extra="allow")

    name: Name = ""
    path: str = ""
    fingerprint: str = ""
    weight: float = Field(1.0, gt=0, le=1)
    documents: Count = 0


class DataInfo(BaseModel):
    """The prepared set that was trained on: documents and languages are counts.

    Of several sets it has the sums, the path of the first, and each of them in `sets`.
    """

    model_config = ConfigDict(extra="allow")

    name: str = ""
    path: str = ""
    fingerprint: str = ""
    documents: Count | dict[Name, Count] = 0
    languages: dict[Name, Any] = Field(default_factory=dict)
    markers: bool = False
    chat: ChatFormat | None = Field(
        default=None, description="None: a base model, which continues text"
    )
    sets: list[SetInfo] = Field(default_factory=list)

    @property
    def title(self) -> str:
        """The name; of several sets each with its share: "a (70 %) + b (30 %)"."""
        return " + ".join(f"{s.name} ({s.weight:.1%})" for s in self.sets) or self.name


class Origin(BaseModel):
    """A checkpoint whose weights another run started from."""

    model_config = ConfigDict(extra="allow")

    run: str = ""
    step: Count = 0
    tokens: Count = 0
    val_loss: float | None = None
    data: str = ""
    created: str = ""


class StageRow(BaseModel):
    """One stage of growth that was begun: from this step on the model had so many blocks."""

    model_config = ConfigDict(extra="allow")

    stage: int = Field(1, ge=1, le=1000)
    step: Count = 0
    layers: int = Field(ge=1, le=1000)


class HistoryRow(BaseModel):
    """One evaluation; rows may have further figures."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str | None]

    step: Count
    tokens: Count = 0
    val_loss: float | None = None
    bpb: float | None = None
    train_seconds: float | None = None
    sets: dict[Name, dict[Name, float | None]] = {}  # figures of each of several sets


_HISTORY = TypeAdapter(list[HistoryRow])


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
    step: Count = 0
    tokens: Count = 0
    losses: Losses = Field(default_factory=Losses)
    data: DataInfo = Field(default_factory=DataInfo)
    run: str = ""
    processes: Count = Field(
        default=0, description="processes that trained together when this was written; 0: not known"
    )
    kind: Kind = "weights"
    history: list[dict[str, Any]] = Field(default_factory=list)
    stages: list[StageRow] = Field(default_factory=list)
    origins: list[Origin] = Field(
        default_factory=list, description="what the run's weights started from, oldest first"
    )
    state: dict[str, Any] = Field(default_factory=dict)
    shared: dict[str, str] = Field(default_factory=dict)
    digests: dict[str, str] = Field(
        default_factory=dict,
        description="CRC-32 of each stored tensor (container.py), 8 hex digits; empty in old files",
    )
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
        for name, section in config.items():
            if not isinstance(section, dict):
                raise ValueError(f"the section {name!r} is not an object")
        vocab_size = config["model"].get("vocab_size", 0)
        if type(vocab_size) is not int or not 0 <= vocab_size <= MAX_COUNT:
            raise ValueError("model.vocab_size is not a number of tokens")
        return config

    @field_validator("tokenizer")
    @classmethod
    def _tokenizer_has_a_kind(cls, tokenizer: dict[str, Any]) -> dict[str, Any]:
        specials = tokenizer.get("specials", {})
        if not isinstance(tokenizer.get("kind", ""), str):
            raise ValueError("its kind is not a text")
        if not isinstance(specials, dict) or not all(
            type(i) is int and 0 <= i <= MAX_COUNT for i in specials.values()
        ):
            raise ValueError("the ids of its special tokens are not numbers")
        return tokenizer

    @model_validator(mode="after")
    def _chat_format_is_known(self) -> Header:
        chat = self.data.chat
        if chat is None:
            return self
        if chat.version > CHAT_VERSION:
            raise ValueError(f"its chat format {chat.version} is of a newer version of holo")
        specials = self.tokenizer.get("specials", {})
        for name in (chat.system, chat.user, chat.assistant, chat.end):
            if name not in specials:
                raise ValueError(f"its chat format names {name!r}, which the tokenizer lacks")
        return self

    @field_validator("history")
    @classmethod
    def _history_is_evaluations(cls, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            _HISTORY.validate_python(history)
        except ValidationError as error:
            raise ValueError(complaint(error)) from None
        return history

    @field_validator("run")
    @classmethod
    def _run_is_a_name(cls, run: str) -> str:
        # it becomes part of file names: of an export, of a resumed run
        try:
            return check_run_name(run) if run else run
        except UsageError as error:
            raise ValueError(error.message.rstrip(".")) from None

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
        if number > PARTS_FORMAT:
            raise CheckpointError(
                f"The checkpoint {path} was written by a newer holo (format {number}, "
                f"this one reads up to {PARTS_FORMAT}).",
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
        changes = {"format": FORMAT_VERSION, "kind": "weights", "state": {}, "digests": {}}
        return self.model_copy(update=changes)
