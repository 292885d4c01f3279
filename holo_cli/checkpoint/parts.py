"""Checkpoints in parts: what the processes of a sharded run write, each its own part.

`RUN_last.safetensors` is then an index without tensors of its own: the header as ever, and under
the key "holo_parts" which rows of which tensor are in which file of the folder `RUN_last.parts`
beside it. The index is renamed into place when all parts are on the disk, so a save that was not
finished is never seen, and the previous one stays whole until then. Part files are safetensors in
the layout of PyTorch's `HuggingFaceStorageWriter`. No pickle, no torch.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from holo_cli.checkpoint.container import ITEM_BYTES, MAX_DIMENSIONS, Container, TensorInfo
from holo_cli.checkpoint.digest import DIGEST_KEY, Verified, text_digest, verify
from holo_cli.checkpoint.header import Count, Name, complaint, damaged
from holo_cli.errors import CheckpointError
from holo_cli.parsing import ParseError, parse_object

PARTS_KEY = "holo_parts"  # of the index's metadata: the JSON of an `PartsIndex`
PARTS_DIGEST_KEY = "holo_parts_crc32"
FOLDER_SUFFIX = ".parts"
MAX_PARTS = 65536
_TRIES = 5  # to read an index and its parts of one moment while a trainer replaces both
_PART = re.compile(r"[0-9]{1,20}-[0-9a-f]{8}-[0-9]{1,6}\.safetensors")


def parts_folder(path: Path) -> Path:
    """Where the parts of the checkpoint at `path` are: `RUN_last.parts`."""
    return path.with_suffix(FOLDER_SUFFIX)


def part_name(step: int, token: str, rank: int) -> str:
    """The name of a process's part; `token` tells saves of the same step apart."""
    return f"{step:09d}-{token}-{rank:05d}.safetensors"


class TensorPiece(BaseModel):
    """`rows` rows of a tensor from row `first` on, in the part of that number; a tensor without a
    dimension counts as one row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: Count
    first: Count
    rows: Count
    crc32: str = Field(pattern="^[0-9a-f]{8}$")


class StoredTensor(BaseModel):
    """A tensor of the whole checkpoint: its pieces make up all its rows, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: list[Count] = Field(max_length=MAX_DIMENSIONS)
    pieces: list[TensorPiece] = Field(max_length=MAX_PARTS)

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @model_validator(mode="after")
    def _whole(self) -> StoredTensor:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"the dtype {self.dtype!r} is unknown")
        reached = 0
        for piece in self.pieces:
            if piece.first != reached:
                raise ValueError(f"row {reached} is in no piece, or in several")
            reached += piece.rows
        if reached != self.rows:
            raise ValueError(f"its pieces have {reached} of {self.rows} rows")
        return self


class PartFile(BaseModel):
    """A part's name in the folder, and its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: Count

    @model_validator(mode="after")
    def _plain_name(self) -> PartFile:
        if not _PART.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot name a part")
        return self


class PartsIndex(BaseModel):
    """What is where. `from_metadata` reads it from a file that anybody may have made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: list[PartFile] = Field(max_length=MAX_PARTS)
    tensors: dict[Name, StoredTensor]

    @model_validator(mode="after")
    def _parts_exist(self) -> PartsIndex:
        for name, tensor in self.tensors.items():
            if any(piece.part >= len(self.parts) for piece in tensor.pieces):
                raise ValueError(f"tensor {name!r} is in a part that is not listed")
        return self

    def metadata(self) -> dict[str, str]:
        """The keys of the index file's metadata that hold this."""
        text = json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":"))
        return {PARTS_KEY: text, PARTS_DIGEST_KEY: text_digest(text)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> PartsIndex:
        """Raises CheckpointError."""
        text = metadata[PARTS_KEY]
        if metadata.get(PARTS_DIGEST_KEY) != text_digest(text):
            raise damaged(path, "its list of parts differs from the list's digest")
        try:
            return cls.model_validate(parse_object(text))
        except ParseError as error:
            raise damaged(path, f"its list of parts is {error}") from error
        except ValidationError as error:
            raise damaged(path, f"in its list of parts {complaint(error)}") from error


class PartsContainer:
    """An index and its parts, used like a `Container`. All parts are opened at once with "pt", so
    that a save that replaces them meanwhile does no harm."""

    def __init__(
        self, index_file: Container, index: PartsIndex, framework: Literal["pt", "np"]
    ) -> None:
        self.path, self.metadata, self.index = index_file.path, index_file.metadata, index
        self._index_file = index_file
        self.folder = parts_folder(self.path)
        self.tensors = {
            name: TensorInfo(name, t.dtype, tuple(t.shape)) for name, t in index.tensors.items()
        }
        self._parts: list[Container] = []
        for part in index.parts:
            self._check_part(part)
        stored, there = (
            sum(i.nbytes for i in self.tensors.values()),
            sum(p.bytes for p in index.parts),
        )
        if stored > there:
            raise damaged(self.path, f"its parts have {there} bytes and its tensors {stored}")
        for part in index.parts:
            if framework == "pt":
                self._parts.append(Container(self.folder / part.name, framework))

    def _check_part(self, part: PartFile) -> None:
        try:
            size = (self.folder / part.name).stat().st_size
        except FileNotFoundError as error:
            raise MissingPartError(
                f"The checkpoint {self.path} has its tensors in {len(self.index.parts)} files of "
                f"{self.folder}, and {part.name} is missing there.",
                next_step="Copy the folder together with the file, or use the run's other file "
                "(_best).",
            ) from error
        if size != part.bytes:
            raise damaged(
                self.path, f"its part {part.name} has {size} bytes in place of {part.bytes}"
            )

    def checked(self, name: str, crc32: str | None = None) -> Any:
        """A tensor in memory of its own. Raises CheckpointError where a piece differs from its
        digest."""
        return self.rows(name, 0, self.index.tensors[name].rows)

    def rows(self, name: str, first: int, count: int, crc32: str | None = None) -> Any:
        """Some rows of a tensor. Each piece that has any of them is read and checked whole."""
        import torch

        stored = self.index.tensors[name]
        found = []
        for piece in stored.pieces:
            begin, end = max(first, piece.first), min(first + count, piece.first + piece.rows)
            if begin < end:
                tensor = self._piece(name, stored, piece)
                found.append(tensor[begin - piece.first : end - piece.first] if stored.shape
                             else tensor)  # fmt: skip
        if not stored.shape:
            return found[0]
        if not found:
            return torch.empty(0, *stored.shape[1:], dtype=self._dtype(stored))
        return found[0].clone() if len(found) == 1 else torch.cat(found)

    @staticmethod
    def _dtype(stored: StoredTensor) -> Any:
        from holo_cli.checkpoint.write import FORMAT_NAMES

        return next(dtype for dtype, name in FORMAT_NAMES.items() if name == stored.dtype)

    def _piece(self, name: str, stored: StoredTensor, piece: TensorPiece) -> Any:
        part, listed = self._parts[piece.part], self.index.parts[piece.part].name
        info = part.tensors.get(name)
        shape = (piece.rows, *stored.shape[1:]) if stored.shape else ()
        if info is None or info.shape != shape or info.dtype != stored.dtype:
            raise damaged(self.path, f"its part {listed} does not fit the tensor '{name}'")
        return part.checked(name, piece.crc32)

    def verify(self, digests: Mapping[str, str] | None = None) -> Verified:
        """Every piece against its digest. Raises OSError."""
        found = Verified(checked=len(self.tensors))
        wrong: set[str] = set()
        for number, part in enumerate(self.index.parts):
            pieces = {
                name: piece.crc32
                for name, tensor in self.index.tensors.items()
                for piece in tensor.pieces
                if piece.part == number
            }
            one = verify(self.folder / part.name, pieces)
            wrong |= set(one.damaged)
            for name, count in one.not_finite.items():
                found.not_finite[name] = found.not_finite.get(name, 0) + count
        found.damaged = sorted(wrong)
        return found

    def holo_metadata(self) -> str:
        """The header's JSON."""
        return self._index_file.holo_metadata()

    def check_header(self, has_digests: bool) -> None:
        """Raise CheckpointError where the header differs from its digest."""
        if DIGEST_KEY not in self.metadata:
            raise damaged(self.path, "its header has lost a digest")
        self._index_file.check_header(True)


class MissingPartError(CheckpointError):
    """A part that the index names is not in the folder."""


def open_container(path: Path, framework: Literal["pt", "np"]) -> Container | PartsContainer:
    """The file at `path`, with its parts if it is an index. Raises OSError and CheckpointError."""
    tries = 0
    while True:
        container = Container(path, framework)
        if PARTS_KEY not in container.metadata:
            return container
        index = PartsIndex.from_metadata(container.metadata, path)
        try:
            return PartsContainer(container, index, framework)
        except (MissingPartError, FileNotFoundError):
            # a trainer may have replaced index and parts since the index was read
            tries += 1
            if tries == _TRIES:
                raise


def files_of(path: Path) -> Iterator[Path]:
    """The file at `path` and, if it is an index, its parts, as far as they are there."""
    yield path
    folder = parts_folder(path)
    if folder.is_dir():
        yield from sorted(one for one in folder.iterdir() if _PART.fullmatch(one.name))


def clear_parts(path: Path, keep: Collection[str] = ()) -> None:
    """Delete the parts of the checkpoint at `path` but those of these names, and the folder if it
    is empty then. Files that cannot be deleted (open on Windows) are left to the next save."""
    folder = parts_folder(path)
    for one in [*files_of(path)][1:]:
        if one.name not in keep:
            with contextlib.suppress(OSError):
                one.unlink()
    if not keep:
        for one in folder.glob(".*.tmp"):  # left by killed writers; no other process writes here
            with contextlib.suppress(OSError):
                one.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def parts_of(path: Path) -> list[str]:
    """The names of the parts of the index at `path`; none where it is no index, or cannot be
    read."""
    try:
        container = Container(path, "np")
        if PARTS_KEY not in container.metadata:
            return []
        return [part.name for part in PartsIndex.from_metadata(container.metadata, path).parts]
    except (OSError, CheckpointError):
        return []
