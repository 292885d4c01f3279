"""A hash table on the disk: from 64-bit keys to the first document that had them.

Open addressing with linear probing. A slot is eight bytes: the upper half of the key, and the
document's number plus one; zero is empty. Half a key and its place are about 50 bits together, so
that one look-up in a hundred million finds a document for a key that it never had; whoever asks
compares the documents anyway.

All work is done for many keys at once with numpy, on a map of the file. The map is let go after
each use once it is large: what was looked at stays in the system's cache, where it can be taken
away when memory is short, and does not count as this process's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FIRST_CAPACITY = 1 << 16  # slots
_FULLEST = 0.6
_LARGE = 1 << 20  # slots above which the map is let go after use
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Index:
    """Made anew by each `Index(path)`; what was in the file is gone."""

    def __init__(self, path: Path, capacity: int = FIRST_CAPACITY) -> None:
        """`capacity` is a power of two: the slots to begin with."""
        self.path, self.capacity, self.used = path, capacity, 0
        self._map: np.memmap | None = np.memmap(path, "<u8", "w+", shape=(capacity,))

    def has_room(self, keys: int) -> bool:
        """Whether that many more keys can be added; else make a larger one and fill it again."""
        return self.used + keys <= _FULLEST * self.capacity

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The document of each key, -1 where there is none. keys (n,) -> (n,)"""
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
        """Note the documents of keys; one that is known keeps its document, as does the first of
        several the same. keys (n,), documents (n,) in the order they came."""
        keys, first = np.unique(keys, return_index=True)
        new = self.find(keys) < 0
        keys, documents = keys[new], documents[first[new]]
        table = self._open()
        slots = (keys & (_LOW << _HALF)) | (documents + 1).astype(np.uint64)
        places = self._places(keys)
        left = np.arange(len(keys))
        while len(left):
            empty = table[places[left]] == 0
            # of several keys that want one empty slot the first gets it
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
