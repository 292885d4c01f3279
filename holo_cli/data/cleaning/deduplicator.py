"""Finds exact and near duplicates among any number of documents.

The fingerprints of all kept documents are in one append-only file, `fingerprints.bin`: 16 bytes of
exact hash and 384 bytes of MinHash signature each. A state is the number of records; `restore`
truncates the file to it and rebuilds the index from the file, because the index may be inconsistent
after a kill.

The index maps a key to the first document that had it. The keys of a document are its exact hash
and 27 bands of seven signature values. Two documents of Jaccard similarity J agree in a whole band
with probability J^7, and in at least one band with 1 - (1 - J^7)^27: 99.8 % at 0.8, 19 % at 0.5.
Documents that agree in a band are compared in all 192 values.

The result depends on the documents and their order alone, not on batches: a document is compared
with all kept documents before it, also those in its own batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.cleaning.fingerprint import VALUES
from holo_cli.data.cleaning.index import FIRST_CAPACITY, Index
from holo_cli.data.files import sync
from holo_cli.errors import DataError

BANDS, ROWS = 27, 7  # bands of values; 27 x 7 = 189 of the 192
DEVIATIONS = 2.2  # standard errors below `near` at which a pair still counts: misses 1.4 %
EXACT, NEAR = "exact duplicates", "near duplicates"
_RECORD = np.dtype([("exact", "S16"), ("signature", "<u2", (VALUES,))])
_CHUNK = 8192  # records read at once while the index is built
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)


class Deduplicator:
    """Stores the fingerprints of documents. `count`: the number of stored documents."""

    def __init__(self, folder: Path, near: float) -> None:
        """`near`: the Jaccard similarity to find, 0 for exact duplicates only.

        Starts empty, whatever is in `folder`; `restore` returns to an earlier state.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._index_path = folder / "fingerprints.bin", folder / "index.bin"
        self._file: BinaryIO = self._path.open("w+b" if not self._path.exists() else "r+b")
        self._index = Index(self._index_path)
        self.near = near
        self.least = near - DEVIATIONS * math.sqrt(near * (1 - near) / VALUES)
        self.count = 0

    def add(self, exact: Sequence[bytes], signatures: NDArray[np.uint16]) -> list[str]:
        """EXACT, NEAR or "" for each document in order; stores the documents with "".

        `exact`: 16-byte hashes; `signatures`: (documents, 192), ignored if `near` is 0.
        """
        records = np.zeros(len(exact), dtype=_RECORD)
        records["exact"] = exact
        if self.near:
            records["signature"] = signatures
        keys = self._keys(records)
        earlier = self._index.find(keys.ravel()).reshape(keys.shape)
        suspect = (earlier >= 0).any(axis=1) | _shared(keys)
        here: dict[int, int] = {}  # keys of suspect documents of this batch -> number
        kept: list[int] = []
        answers: list[str] = []
        for i, check in enumerate(suspect.tolist()):
            if not check:  # no other document has one of its keys
                answers.append("")
                kept.append(i)
                continue
            own: list[int] = keys[i].tolist()
            numbers = {
                number if number >= 0 else here.get(key, -1)
                for key, number in zip(own, earlier[i].tolist(), strict=True)
            }
            numbers.discard(-1)
            answer = self._compare(records[i], self._read(sorted(numbers), records, kept))
            answers.append(answer)
            if not answer:
                for key in own:
                    here.setdefault(key, self.count + len(kept))
                kept.append(i)
        self._store(records[kept], keys[kept])
        return answers

    def state(self) -> int:
        """The state for `restore`; the file is synced when this returns."""
        sync(self._file)
        return self.count

    def restore(self, count: int) -> None:
        """Return to the state with `count` documents. DataError if the file is too short."""
        size = self._file.seek(0, 2)
        if size < count * _RECORD.itemsize:
            raise DataError(
                f"{self._path} is shorter than the progress file says.",
                next_step="Start over with --force.",
            )
        self._file.truncate(count * _RECORD.itemsize)
        self.count = count
        self._build_index(FIRST_CAPACITY)

    def close(self) -> None:
        self._file.close()
        self._index.close()

    # -- comparison -------------------------------------------------------------------------------

    def _read(
        self, numbers: Sequence[int], batch: NDArray[np.void], kept: Sequence[int]
    ) -> NDArray[np.void]:
        """The records of documents, from the file or from the current batch."""
        found = np.zeros(len(numbers), dtype=_RECORD)
        for at, number in enumerate(numbers):
            if number >= self.count:
                found[at] = batch[kept[number - self.count]]
            else:
                self._file.seek(number * _RECORD.itemsize)
                found[at] = np.frombuffer(self._file.read(_RECORD.itemsize), dtype=_RECORD)[0]
        return found

    def _compare(self, record: np.void, others: NDArray[np.void]) -> str:
        if not len(others):
            return ""
        if bool((others["exact"] == record["exact"]).any()):
            return EXACT
        if not self.near:
            return ""
        equal = np.count_nonzero(others["signature"] == record["signature"], axis=1)
        return NEAR if int(equal.max()) >= self.least * VALUES else ""

    # -- file and index ---------------------------------------------------------------------------

    def _store(self, records: NDArray[np.void], keys: NDArray[np.uint64]) -> None:
        self._file.seek(self.count * _RECORD.itemsize)
        self._file.write(records.tobytes())
        first, self.count = self.count, self.count + len(records)
        if not self._index.has_room(keys.size):
            self._build_index(self._index.capacity * 2)
            return
        self._index.add(keys.ravel(), np.arange(first, self.count).repeat(keys.shape[1]))

    def _build_index(self, capacity: int) -> None:
        """Build the index from the file, with at least `capacity` slots."""
        self._index.close()
        self._index = index = Index(self._index_path, capacity)
        for first in range(0, self.count, _CHUNK):
            self._file.seek(first * _RECORD.itemsize)
            data = self._file.read(min(_CHUNK, self.count - first) * _RECORD.itemsize)
            keys = self._keys(np.frombuffer(data, dtype=_RECORD))
            if not index.has_room(keys.size):
                self._build_index(capacity * 2)
                return
            index.add(keys.ravel(), np.arange(first, first + len(keys)).repeat(keys.shape[1]))

    def _keys(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        """The keys of each record: (n,) -> (n, 1 + bands)."""
        halves = np.ascontiguousarray(records["exact"]).view("<u8").reshape(-1, 2)
        if not self.near:
            return halves[:, :1].copy()
        values = records["signature"][:, : BANDS * ROWS].reshape(-1, BANDS, ROWS)
        keys = np.arange(1, BANDS + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
        keys = np.broadcast_to(keys, values.shape[:2]).copy()
        for row in range(ROWS):
            keys ^= keys >> np.uint64(29)
            keys += values[:, :, row]
            keys *= _MULTIPLY  # wraps around
        keys ^= keys >> np.uint64(32)
        return np.concatenate((halves[:, :1], keys), axis=1)


def _shared(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows have a key that another row has too: (n, keys) -> (n,)."""
    flat = keys.ravel()
    order = np.argsort(flat)
    same = flat[order[1:]] == flat[order[:-1]]
    found = np.zeros(len(keys), dtype=bool)
    found[order[1:][same] // keys.shape[1]] = True
    found[order[:-1][same] // keys.shape[1]] = True
    return found
