"""Writes token shards so that a kill at any moment loses at most a few seconds of work.

Each split has one open shard: three append-only files NAME.bin.part (tokens), NAME.idx.part
(document ends) and NAME.docs.part (records). `progress.json` holds their lengths at the last
checkpoint, when the files of both splits were synced. On resuming, the files are truncated to these
lengths and the documents after them are written again: the shards come out byte-identical.

A full shard is sealed in three steps: its files are synced; a new `progress.json` lists it as
sealed; its files get their final names. Resuming repeats a renaming that did not happen. A document
is never divided between two shards; one longer than a shard has a shard of its own.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.files import sha256_of, sync
from holo_cli.data.meta import RECORD, SPLITS, Shard, Split
from holo_cli.errors import DataError
from holo_cli.files import atomic_write_json, fsync_folder
from holo_cli.parsing import read_object

PROGRESS = "progress.json"
SHARD_BYTES = 100_000_000  # size of a .bin file
_BUFFERED = 1 << 20  # tokens of an open shard that are buffered before a write
_COUNTS = ("tokens", "documents", "bytes", "words")


class _OpenShard:
    """The shard of a split that is being written, with counts of its content."""

    def __init__(self, folder: Path, split: Split, number: int, dtype: np.dtype[Any]) -> None:
        self.split, self.dtype = split, dtype
        self.number = number
        self.name = f"{split}_{number:05d}"
        self.paths = {kind: folder / f"{self.name}.{kind}.part" for kind in ("bin", "idx", "docs")}
        self.tokens = self.documents = self.bytes = self.words = 0
        self._files: dict[str, BinaryIO] = {}
        # buffered: ids, document ends, records
        self._buffer: tuple[list[NDArray[Any]], list[int], list[tuple[Any, ...]]] = ([], [], [])
        self._written = 0  # tokens in the file

    def reopen(self, state: dict[str, int]) -> None:
        """Truncate the files to a checkpoint."""
        self.tokens, self.documents = state["tokens"], state["documents"]
        self._written = self.tokens
        self.bytes, self.words = state["bytes"], state["words"]
        lengths = {
            "bin": self.tokens * self.dtype.itemsize,
            "idx": self.documents * 8,
            "docs": self.documents * RECORD.itemsize,
        }
        for kind, path in self.paths.items():
            file = path.open("r+b" if path.exists() else "w+b")
            if file.seek(0, 2) < lengths[kind]:
                file.close()
                raise DataError(
                    f"{path} is shorter than {PROGRESS} says.",
                    next_step="Start over with --force.",
                )
            file.truncate(lengths[kind])
            file.seek(lengths[kind])
            self._files[kind] = file

    def add(
        self,
        ids: NDArray[Any],
        size: int,
        language: str,
        source: int,
        words: int,
        score: float | None,
        perplexity: float | None,
    ) -> None:
        self.tokens += len(ids)
        self.documents += 1
        self.bytes += size
        self.words += words
        figures = (np.nan if figure is None else figure for figure in (score, perplexity))
        all_ids, ends, records = self._buffer
        all_ids.append(ids)
        ends.append(self.tokens)
        records.append((size, language.encode("utf-8")[:8], source, words, *figures))
        if self.tokens - self._written >= _BUFFERED:
            self._write()

    def _write(self) -> None:
        """Write the buffer; a write per document would be several times slower."""
        ids, ends, records = self._buffer
        if not ends:
            return
        joined = np.concatenate(ids, dtype=self.dtype, casting="unsafe")
        self._files["bin"].write(joined.data)
        self._files["idx"].write(np.array(ends, dtype="<u8").tobytes())
        self._files["docs"].write(np.array(records, dtype=RECORD).tobytes())
        self._buffer, self._written = ([], [], []), self.tokens

    def sync(self) -> None:
        self._write()
        for file in self._files.values():
            sync(file)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # closes all, even where one cannot be flushed
            for file in self._files.values():
                stack.callback(file.close)
        self._files = {}

    def state(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _COUNTS}

    def finish(self) -> Shard:
        """Complete the files, under their .part names; returns their entry of meta.json."""
        self.sync()
        self.close()
        records = np.fromfile(self.paths["docs"], dtype=RECORD)
        docs = self.paths["docs"].with_name(f"{self.name}.docs.npy.part")
        with docs.open("wb") as file:
            np.save(file, records, allow_pickle=False)
            sync(file)
        return Shard(
            name=self.name,
            split=self.split,
            **self.state(),
            sha256=sha256_of(self.paths["bin"]),
            idx_sha256=sha256_of(self.paths["idx"]),
            docs_sha256=sha256_of(docs),
        )


class ShardWriter:
    """Writes the shards of a set into a folder. `position` counts the documents written so far.

    `mark` is the last argument of `checkpoint(mark)`, `marked_at` the position at that call. A
    shard may be sealed between two marks: after an interruption the caller then skips the
    documents from `marked_at` to `position`, which the source repeats.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str,
        settings: dict[str, Any],
        shard_bytes: int = SHARD_BYTES,
        plan: dict[str, Any] | None = None,
    ) -> None:
        """Resumes from `folder/progress.json` if there is one. `plan`: stored with the progress."""
        self.folder, self.settings, self.plan = folder, settings, plan
        self.mark: dict[str, Any] | None = None
        self.marked_at = 0
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.limit = max(shard_bytes // self.dtype.itemsize, 1)
        self.sealed: list[Shard] = []
        self.position = 0
        self._open: dict[Split, _OpenShard] = {}
        progress = read_progress(folder)
        states: dict[str, dict[str, int]] = {}
        if progress is not None:
            self.position = progress["position"]
            self.mark, self.marked_at = progress["mark"], progress["marked_at"]
            self.sealed = [Shard.model_validate(shard) for shard in progress["sealed"]]
            states = progress["open"]
            for shard in self.sealed:
                self._rename(shard.name)
        for split in SPLITS:
            self._begin(split, states.get(split))
        if progress is None:
            self.checkpoint()

    def _begin(self, split: Split, state: dict[str, int] | None = None) -> None:
        number = sum(shard.split == split for shard in self.sealed)
        shard = _OpenShard(self.folder, split, number, self.dtype)
        shard.reopen(state or dict.fromkeys(_COUNTS, 0))
        self._open[split] = shard

    def add(
        self,
        split: Split,
        ids: Sequence[int] | NDArray[Any],
        size: int,
        language: str = "",
        source: int = 0,
        *,
        words: int = 0,
        score: float | None = None,
        perplexity: float | None = None,
    ) -> None:
        """Append a document: its ids (marker and end included), the UTF-8 bytes of its text, ..."""
        shard = self._open[split]
        if shard.documents and shard.tokens + len(ids) > self.limit:
            self._seal(split)
            shard = self._open[split]
        shard.add(np.asarray(ids), size, language, source, words, score, perplexity)
        self.position += 1

    def _seal(self, split: Split) -> None:
        name = self._open[split].name
        self.sealed.append(self._open[split].finish())
        self._begin(split)
        self.checkpoint()
        self._rename(name)

    def checkpoint(self, mark: dict[str, Any] | None = None) -> None:
        """Sync everything and store the progress; `mark`: where the source is now."""
        if mark is not None:
            self.mark, self.marked_at = mark, self.position
        for shard in self._open.values():
            shard.sync()
        progress = {
            "settings": self.settings,
            "plan": self.plan,
            "mark": self.mark,
            "marked_at": self.marked_at,
            "position": self.position,
            "sealed": [shard.model_dump() for shard in self.sealed],
            "open": {split: shard.state() for split, shard in self._open.items()},
        }
        atomic_write_json(self.folder / PROGRESS, progress)

    def finish(self) -> list[Shard]:
        """Seal the open shards; returns the shards of both splits, train first."""
        for split in SPLITS:
            if self._open[split].documents:
                self._seal(split)
        self.close()
        for shard in self._open.values():
            for path in shard.paths.values():
                path.unlink(missing_ok=True)
        return sorted(self.sealed, key=lambda shard: (SPLITS.index(shard.split), shard.name))

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for shard in self._open.values():
                stack.callback(shard.close)

    def _rename(self, name: str) -> None:
        """Give the files of a sealed shard their final names, if that has not happened yet."""
        for kind in ("bin", "idx", "docs.npy"):
            part = self.folder / f"{name}.{kind}.part"
            if part.exists():
                part.replace(self.folder / f"{name}.{kind}")
        (self.folder / f"{name}.docs.part").unlink(missing_ok=True)
        fsync_folder(self.folder)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The progress file of an interrupted preparation, or None. DataError for a damaged one."""
    path = folder / PROGRESS
    if not path.exists():
        return None
    try:
        progress = read_object(path, any_integer=True)
    except ValueError as error:
        raise DataError(f"{path} is damaged.", next_step="Start over with --force.") from error
    return progress


def language_totals(folder: Path, shards: Sequence[Shard]) -> dict[str, dict[str, int]]:
    """Documents, bytes and tokens of each language in `shards`, from their records."""
    totals: dict[str, array[int]] = {}
    for shard in shards:
        records = np.load(folder / f"{shard.name}.docs.npy", allow_pickle=False)
        ends = np.fromfile(folder / f"{shard.name}.idx", dtype="<u8")
        tokens = np.diff(ends, prepend=np.uint64(0))
        for code in np.unique(records["language"]):
            mask = records["language"] == code
            share = totals.setdefault(code.decode("utf-8"), array("Q", (0, 0, 0)))
            share[0] += int(mask.sum())
            share[1] += int(records["bytes"][mask].sum())
            share[2] += int(tokens[mask].sum())
    return {
        code: dict(zip(("documents", "bytes", "tokens"), share, strict=True))
        for code, share in sorted(totals.items())
    }
