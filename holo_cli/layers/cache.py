"""KV cache: buffers that grow along time, shared safely by several decoding states.

Keys and values are in one buffer with spare room, so that a step copies only the new ones. A state
is still a value: two states may share a buffer as long as only one of them continues it; the second
to continue copies it first. Rows that have read different numbers of tokens share a `RowsCache`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from holo_cli.layers.positions import Positions, RowPositions


class KVCache:
    """Tensors (B, H, L, d_i) that share B, H and L. `length` positions belong to this state."""

    length: Positions

    def __init__(self, buffers: list[Tensor] | None = None, length: int = 0) -> None:
        self._store = _Store(buffers or [], length)
        self.length = length

    def append(self, *new: Tensor) -> KVCache:
        """A cache with `new`, each (B, H, S, d_i), appended; self stays valid."""
        start = self._plain_length()
        end = start + new[0].shape[2]
        store = self._store
        if store.filled != start or not store.fits(end):
            store = store.copy(start, end, new)
        for buffer, piece in zip(store.buffers, new, strict=True):
            buffer[:, :, start:end] = piece
        store.filled = end
        grown = KVCache.__new__(KVCache)
        grown.length, grown._store = end, store
        return grown

    def seen(self) -> Tensor | None:
        """(B, 1, 1, L) bool: which positions of `views` a row has; None where it has all."""
        return None

    def cut(self, length: Positions, *, reclaim: bool) -> KVCache:
        """The first `length` positions, in the same buffers; self stays valid.

        `reclaim`: the cut cache is continued in place, over the positions after it, unless another
        state has continued self; caches longer than `length` are then not to be used again.
        """
        assert isinstance(length, int)
        shorter = KVCache.__new__(KVCache)
        shorter.length, shorter._store = length, self._store
        if reclaim and self._store.filled == self.length:
            self._store.filled = length
        return shorter

    def views(self) -> list[Tensor]:
        """The tensors up to `length`, without a copy."""
        return [b[:, :, : self._plain_length()] for b in self._store.buffers]

    def select(self, rows: Tensor) -> KVCache:
        """The cache of the given rows, (R,) int64."""
        return KVCache([v.index_select(0, rows) for v in self.views()], self._plain_length())

    def tensors(self) -> Iterator[Tensor]:
        yield from self.views()

    def kind(self) -> tuple[object, ...]:
        """What caches that are joined have in common (`layers/joined.py`)."""
        shapes = [(b.shape[1], b.shape[3], str(b.dtype)) for b in self._store.buffers]
        return (self.length, *map(repr, shapes))

    @staticmethod
    def joined(caches: Sequence[KVCache], length: Positions) -> KVCache:
        """The rows of all, which have read `length` tokens each: a copy."""
        views = [cache.views() for cache in caches]
        if isinstance(length, int):
            parts = [torch.cat(pieces) for pieces in zip(*views, strict=True)]
            return KVCache(parts, length)
        rows = length.of_rows.shape[0]
        buffers = []
        for pieces in zip(*views, strict=True):
            like = pieces[0]
            room = _room(length.most + 1)
            buffer = like.new_zeros(rows, like.shape[1], room, like.shape[3])
            first = 0
            for piece in pieces:
                end = first + piece.shape[0]
                buffer[first:end, :, : piece.shape[2]] = piece
                first = end
            buffers.append(buffer)
        return RowsCache(buffers, length)

    def _plain_length(self) -> int:
        assert isinstance(self.length, int)
        return self.length


class RowsCache(KVCache):
    """A cache whose rows have read different numbers of tokens; steps of one position only.

    Positions of `views` beyond a row's own hold anything: `seen` says which they are.
    """

    length: RowPositions

    def __init__(self, buffers: list[Tensor], length: RowPositions) -> None:
        self._store = _Store(buffers, length.most)
        self._version = 0
        self.length = length

    def append(self, *new: Tensor) -> RowsCache:
        assert new[0].shape[2] == 1, "rows of different lengths read one token at a time"
        store = self._store
        if store.version != self._version or not store.fits(self.length.most + 1):
            store = store.copy(self.length.most, self.length.most + 1, new)
        at = self.length.of_rows
        rows = torch.arange(at.shape[0], device=at.device)
        for buffer, piece in zip(store.buffers, new, strict=True):
            # under autocast a piece may have fewer bits; unlike a slice, an index does not convert
            buffer[rows, :, at] = piece[:, :, 0].to(buffer.dtype)
        grown = RowsCache.__new__(RowsCache)
        grown.length, grown._store = self.length + 1, store
        store.version += 1
        grown._version = store.version
        return grown

    def seen(self) -> Tensor:
        at = torch.arange(self.length.most, device=self.length.of_rows.device)
        return (at < self.length.of_rows[:, None])[:, None, None]

    def views(self) -> list[Tensor]:
        return [b[:, :, : self.length.most] for b in self._store.buffers]

    def cut(self, length: Positions, *, reclaim: bool) -> KVCache:
        raise TypeError  # drafts are of one row

    def select(self, rows: Tensor) -> RowsCache:
        length = self.length.select(rows)
        return RowsCache(
            [v[:, :, : length.most].index_select(0, rows) for v in self.views()], length
        )

    def alone(self) -> KVCache:
        """The cache of the only row."""
        length = self.length.row(0)
        return KVCache([v[:, :, :length] for v in self.views()], length)


class _Store:
    """The shared buffers behind caches; `filled` positions are written."""

    def __init__(self, buffers: list[Tensor], filled: int) -> None:
        self.buffers = buffers
        self.filled = filled
        self.version = 0  # of rows of different lengths: the cache that may write has the same

    def fits(self, length: int) -> bool:
        return bool(self.buffers) and self.buffers[0].shape[2] >= length

    def copy(self, keep: int, length: int, like: tuple[Tensor, ...]) -> _Store:
        """A store with room for at least `length` positions that starts with the first `keep`."""
        room = _room(length)
        buffers = []
        for i, piece in enumerate(like):
            batch, heads, _, width = piece.shape
            # zeros, not empty: a buffer is never read past its end, but NaN there would be a trap
            buffer = torch.zeros(batch, heads, room, width, dtype=piece.dtype, device=piece.device)
            if keep:
                buffer[:, :, :keep] = self.buffers[i][:, :, :keep]
            buffers.append(buffer)
        return _Store(buffers, keep)


def _room(length: int) -> int:
    """Positions to make room for, so that growing rarely copies."""
    return max(64, 1 << (length - 1).bit_length())
