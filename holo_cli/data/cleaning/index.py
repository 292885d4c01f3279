"""A hash table on disk: from 64-bit keys to the first document that had them.

Open addressing with linear probing. A slot has eight bytes: the upper half of the key, and the
number of the document plus one; zero is empty. Half of the key and the slot index are about 50 bits
together: one look-up in a hundred million returns a document that never had the key. The caller
compares the documents anyway.

All operations are vectorised over many keys with numpy on a memory map. A large map is closed after
each use: its pages then stay in the page cache of the system, which can reclaim them, and do not
count as memory of this process.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FIRST_CAPACITY = 1 << 16  # slots
_MAX_LOAD = 0.6
_LARGE = 1 << 20  # slots above which the map is closed after use
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Index:
    """`Index(path)` always starts empty and overwrites the file."""

    def __init__(self, path: Path, capacity: int = FIRST_CAPACITY) -> None:
        """`capacity`: the number of slots, a power of two."""
        self.path, self.capacity, self.used = path, capacity, 0
        self._map: np.memmap | None = np.memmap(path, "<u8", "w+", shape=(capacity,))

    def has_room(self, keys: int) -> bool:
        """Whether `keys` more keys can be added; if not, the caller builds a larger index."""
        return self.used + keys <= _MAX_LOAD * self.capacity

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The document of each key, -1 if there is none. keys (n,) -> (n,)"""
        table, found = self._open(), np.full(len(keys), -1, dtype=np.int64)
        tags, places = keys >> _HALF, self._places(keys)
        left = np.arange(len(keys))
        while len(left):
            slots = table[places[left]]
            same = (slots >> _HALF == tags[left]) & (slots != 0)
            found[left[same]] = (slots[same] & _LOW).astype(np.int64) - 1
            left = left[~same & (slots != 0)]
            places[left] = (places[left] + 1) & (self.capacity - 1)
        self._release()
        return found

    def add(self, keys: NDArray[np.uint64], documents: NDArray[np.int64]) -> None:
        """Store the documents of new keys; of equal keys the first counts. keys, documents (n,)."""
        keys, first = np.unique(keys, return_index=True)
        new = self.find(keys) < 0
        keys, documents = keys[new], documents[first[new]]
        table = self._open()
        slots = (keys & (_LOW << _HALF)) | (documents + 1).astype(np.uint64)
        places = self._places(keys)
        left = np.arange(len(keys))
        while len(left):
            empty = table[places[left]] == 0
            # of several keys for one empty slot, the first gets it
            at, winners = np.unique(places[left[empty]], return_index=True)
            placed = left[empty][winners]
            table[at] = slots[placed]
            waiting = np.ones(len(left), dtype=bool)
            waiting[np.flatnonzero(empty)[winners]] = False
            left = left[waiting]
            places[left] = (places[left] + 1) & (self.capacity - 1)
        self.used += len(keys)
        self._release()

    def close(self) -> None:
        self._map = None

    def _places(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (keys & np.uint64(self.capacity - 1)).astype(np.int64)

    def _open(self) -> np.memmap:
        if self._map is None:
            self._map = np.memmap(self.path, "<u8", "r+", shape=(self.capacity,))
        return self._map

    def _release(self) -> None:
        if self.capacity > _LARGE:
            self._map = None
