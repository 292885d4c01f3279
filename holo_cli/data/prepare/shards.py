"""Documents to token shards on disk, so that a kill at any moment loses at most a few seconds.

Each split has one open shard: three files NAME.bin.part (tokens), NAME.idx.part (document ends)
and NAME.docs.part (records), which only grow. `progress.json` says how long each of them was at a
moment when all three, of both splits, were on disk together. What was written later is cut off
when work goes on, and written again from the documents: the shards come out the same to the byte.

A full shard is sealed in three steps: its files are synced; `progress.json` is replaced and calls
it sealed; its files get their final names. Renaming is done again on resuming where it was missed.
A document never lies across two shards; one longer than a shard has a shard of its own.
"""

from __future__ import annotations

import contextlib
import json
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

PROGRESS = "progress.json"
SHARD_BYTES = 100_000_000  # of tokens, in one .bin
_HELD = 1 << 20  # tokens of an open shard that may wait to be written together
_EMPTY = ("tokens", "documents", "bytes", "words")  # what is counted of an open shard


class _OpenShard:
    """The shard of a split that is being written. `tokens` etc. count what it holds so far."""

    def __init__(self, folder: Path, split: Split, number: int, dtype: np.dtype[Any]) -> None:
        self.split, self.dtype = split, dtype
        self.number = number
        self.name = f"{split}_{number:05d}"
        self.paths = {kind: folder / f"{self.name}.{kind}.part" for kind in ("bin", "idx", "docs")}
        self.tokens = self.documents = self.bytes = self.words = 0
        self._files: dict[str, BinaryIO] = {}
        # what is not written yet: ids, where documents end, and records
        self._held: tuple[list[NDArray[Any]], list[int], list[tuple[Any, ...]]] = ([], [], [])
        self._written = 0  # tokens

    def reopen(self, state: dict[str, int]) -> None:
        """Go back to a recorded moment: files are cut to the length they had then."""
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
                    f"{path} is shorter than the progress file says.",
                    next_step="Begin anew with --force.",
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
        all_ids, ends, records = self._held
        all_ids.append(ids)
        ends.append(self.tokens)
        records.append((size, language.encode("utf-8")[:8], source, words, *figures))
        if self.tokens - self._written >= _HELD:
            self._write()

    def _write(self) -> None:
        """Hand over what is held; document by document would take several times as long."""
        ids, ends, records = self._held
        if not ends:
            return
        joined = np.concatenate(ids, dtype=self.dtype, casting="unsafe")
        self._files["bin"].write(joined.data)
        self._files["idx"].write(np.array(ends, dtype="<u8").tobytes())
        self._files["docs"].write(np.array(records, dtype=RECORD).tobytes())
        self._held, self._written = ([], [], []), self.tokens

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
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "words": self.words,
        }

    def finish(self) -> Shard:
        """Complete the files, still under their .part names; what meta.json says about them."""
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
    """Writes the shards of a set into a folder. `position` counts the documents packed so far.

    `mark` is what was noted last with `checkpoint(mark)`, from before the interruption, and
    `marked_at` the position at that moment. Between two marks a shard may be sealed: then the
    documents between `marked_at` and `position` come again from the source and are passed over.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str,
        settings: dict[str, Any],
        shard_bytes: int = SHARD_BYTES,
        plan: dict[str, Any] | None = None,
    ) -> None:
        """Goes on from `folder/progress.json` where there is one; it must be of `settings`.

        `plan` is noted with everything else: how the documents are divided.
        """
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
        shard.reopen(state or dict.fromkeys(_EMPTY, 0))
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
        """One document: all its ids (marker and end included) and the UTF-8 bytes of its text."""
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
        """Bring everything to disk and note it; `mark` says where the documents stand now."""
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
        """Seal what is open; the shards of both splits, train first."""
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
        """Give a sealed shard its final names; what already has them is left alone."""
        for kind in ("bin", "idx", "docs.npy"):
            part = self.folder / f"{name}.{kind}.part"
            if part.exists():
                part.replace(self.folder / f"{name}.{kind}")
        (self.folder / f"{name}.docs.part").unlink(missing_ok=True)
        fsync_folder(self.folder)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The progress of an unfinished preparation in a folder, or None."""
    path = folder / PROGRESS
    if not path.exists():
        return None
    try:
        progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged.", next_step="Begin anew with --force.") from error
    return progress


def languages_of(folder: Path, shards: Sequence[Shard]) -> dict[str, dict[str, int]]:
    """Documents, bytes and tokens of each language over some shards, from their records."""
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
