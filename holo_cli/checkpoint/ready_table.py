"""The table of ready checkpoints: their names, files, sizes and digests, and where they are.

`ready.json` beside this module is the project's. Another one, a file or an address, has the same
form. Entries without a digest, or a table without an address, belong to a release that is not
published yet. Anybody may have made a table, so nothing in it is trusted.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urljoin, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from holo_cli.errors import CheckpointError, UsageError, nearest
from holo_cli.parsing import ParseError, parse_object

FORMAT = 1
OWN = Path(__file__).with_name("ready.json")
MAX_TABLE_BYTES = 1_000_000
MAX_BYTES = 2**31  # of a checkpoint in a table: a wrong size must not fill the disk
MAKE = "python -m benchmarks.ready_checkpoints"
PREFIX = "ready-"  # of the runs' names, so that nobody's own run is replaced

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}")


class ReadyEntry(BaseModel):
    """One checkpoint. `sha256` and `bytes` are empty until it is published."""

    model_config = ConfigDict(extra="ignore")

    name: str
    file: str
    about: Annotated[str, Field(max_length=500)] = ""
    bytes: int = Field(0, ge=0, le=MAX_BYTES)
    sha256: str = ""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("not a name of small letters, digits, '-', '_' and '.'")
        return name

    @field_validator("file")
    @classmethod
    def _is_a_file_name(cls, file: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.safetensors", file):
            raise ValueError("not the name of a .safetensors file")
        return file

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, sha256: str) -> str:
        if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError("not a sha256 in hexadecimal digits")
        return sha256

    @property
    def published(self) -> bool:
        return bool(self.sha256 and self.bytes)

    @property
    def run(self) -> str:
        """The run that it becomes here."""
        return f"{PREFIX}{self.name}"


class ReadyTable(BaseModel):
    """All checkpoints of a release. `base_url`: the folder of their files; "" without a release.
    `place` names the table in messages; "" is the project's own."""

    model_config = ConfigDict(extra="ignore")

    format: int
    base_url: str = ""
    checkpoints: list[ReadyEntry]
    place: str = Field("", exclude=True)

    def entry(self, name: str) -> ReadyEntry:
        """The entry of a name, with or without its prefix. UsageError if there is none."""
        bare = name.removeprefix(PREFIX)
        found = next((one for one in self.checkpoints if one.name == bare), None)
        if found is None:
            known = [one.name for one in self.checkpoints]
            raise UsageError(
                f"There is no ready checkpoint '{name}'.",
                next_step=nearest(bare, known) or "`holo pull` lists them.",
            )
        return found


@dataclass(frozen=True)
class ReadySource:
    """A checkpoint of a table, and the address of its file."""

    entry: ReadyEntry
    url: str


def parse_table(content: str | bytes, place: str = "") -> ReadyTable:
    """A table from its JSON; `place` names it in messages, "" the project's own. Raises
    CheckpointError."""
    own, place = not place, place or "of holo"
    try:
        found = parse_object(content, limit=MAX_TABLE_BYTES)
        number = found.get("format")
        if isinstance(number, int) and number > FORMAT:
            raise CheckpointError(
                f"The table {place} is of a newer version of holo (format {number}).",
                next_step="Update holo: pip install --upgrade holo-cli",
            )
        return ReadyTable.model_validate(found | {"place": "" if own else place})
    except ParseError as error:
        raise CheckpointError(
            f"{place} is not a table of checkpoints: it is {error}.",
            next_step="Leave --table out for the project's own.",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(
            f"{place} is not a table of checkpoints: '{key}': {reason}.",
            next_step="Leave --table out for the project's own.",
        ) from error


def source_of(table: ReadyTable, name: str, base_url: str | None = None) -> ReadySource:
    """Where a checkpoint is. Raises UsageError for another name, CheckpointError where it is not
    published."""
    entry = table.entry(name)
    base = base_url or table.base_url
    if table.place and not entry.published:
        raise CheckpointError(
            f"The table {table.place} has no size and sha256 for '{entry.name}'.",
            next_step="Ask whoever made the table: without them the file cannot be checked.",
        )
    if table.place and not base:
        raise CheckpointError(
            f"The table {table.place} does not say where its files are.",
            next_step="Give the address of their folder with --base-url.",
        )
    if not base or not entry.published:
        raise CheckpointError(
            f"The ready checkpoint '{entry.name}' has not been published yet.",
            next_step=f"Make it in a clone of the project with `{MAKE} --only {entry.name}`, then: "
            f"holo chat -c ready/{entry.file}",
        )
    url = urljoin(base if base.endswith("/") else f"{base}/", entry.file)
    check_address(url)
    return ReadySource(entry, url)


def is_address(text: str) -> bool:
    """Whether a --table is an address and no file."""
    return "://" in text


def check_address(url: str) -> str:
    """The address, if it may be fetched: https, or http of this machine. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not safe or parts.username or parts.password:
        raise UsageError(
            f"{url} cannot be fetched: checkpoints are fetched by https alone, or by http from "
            "this machine.",
            next_step="Use an address that begins with https://.",
        )
    return url


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
