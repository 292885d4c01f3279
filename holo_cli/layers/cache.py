"""KV cache: buffers that grow along time, shared safely by several decoding states.

Keys and values are in one buffer with spare room, so that a step copies only the new ones. A state
is still a value: two states may share a buffer as long as only one of them continues it; the second
to continue copies it first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class KVCache:
    """Tensors (B, H, L, d_i) that share B, H and L. `length` positions belong to this state."""

    def __init__(self, buffers: list[Tensor] | None = None, length: int = 0) -> None:
        self._store = _Store(buffers or [], length)
        self.length = length

    def append(self, *new: Tensor) -> KVCache:
        """A cache with `new`, each (B, H, S, d_i), appended; self stays valid."""
        grown = KVCache.__new__(KVCache)
        grown.length = self.length + new[0].shape[2]
        store = self._store
        if store.filled != self.length or not store.fits(grown.length):
            store = store.copy(self.length, grown.length, new)
        for buffer, piece in zip(store.buffers, new, strict=True):
            buffer[:, :, self.length : grown.length] = piece
        store.filled = grown.length
        grown._store = store
        return grown

    def cut(self, length: int, *, reclaim: bool) -> KVCache:
        """The first `length` positions, in the same buffers; self stays valid.

        `reclaim`: the cut cache is continued in place, over the positions after it, unless another
        state has continued self; caches longer than `length` are then not to be used again.
        """
        shorter = KVCache.__new__(KVCache)
        shorter.length, shorter._store = length, self._store
        if reclaim and self._store.filled == self.length:
            self._store.filled = length
        return shorter

    def views(self) -> list[Tensor]:
        """The tensors up to `length`, without a copy."""
        return [b[:, :, : self.length] for b in self._store.buffers]

    def select(self, rows: Tensor) -> KVCache:
        """The cache of the given rows, (R,) int64."""
        return KVCache([v.index_select(0, rows) for v in self.views()], self.length)

    def tensors(self) -> Iterator[Tensor]:
        yield from self.views()


class _Store:
    """The shared buffers behind caches; `filled` positions are written."""

    def __init__(self, buffers: list[Tensor], filled: int) -> None:
        self.buffers = buffers
        self.filled = filled

    def fits(self, length: int) -> bool:
        return bool(self.buffers) and self.buffers[0].shape[2] >= length

    def copy(self, keep: int, length: int, like: tuple[Tensor, ...]) -> _Store:
        """A store with room for at least `length` positions that starts with the first `keep`."""
        room = max(64, 1 << (length - 1).bit_length())
        buffers = []
        for i, piece in enumerate(like):
            batch, heads, _, width = piece.shape
            # zeros, not empty: a buffer is never read past its end, but NaN there would be a trap
            buffer = torch.zeros(batch, heads, room, width, dtype=piece.dtype, device=piece.device)
            if keep:
                buffer[:, :, :keep] = self.buffers[i][:, :, :keep]
            buffers.append(buffer)
        return _Store(buffers, keep)
