"""Weighted means within a radius without gradient, in tiles that fit a processor's cache.

A tile is one product of augmented coordinates, which becomes weights in place, and one product with
[m v, m], whose last column is the sum to divide by. A hard radius is a threshold on the tile: one
pass in the cache. Keys that no query of a block can reach are dropped before, one by one, where so
many are that gathering the rest pays.

There is no running maximum: inverse powers need none, and exponentials come here only where all
weights within the radius are far above the smallest number (`STEEPEST`). A token's own weight then
has the lower bound `ALONE`, which counts where no other token is within the radius.

Legend: B rows, H heads, N = B H of both, S queries (the last S of L positions), c augmented
coordinates, e per head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

QUERIES, KEYS = 128, 1024  # of a tile: 512 KiB in float32
GATHERED = 0.7  # share of a block's keys up to which the ones within reach are gathered
STEEPEST = 30.0  # largest gamma r^2
ALONE = 1e-30


class TileForm(NamedTuple):
    """A kernel as a product of augmented coordinates and functions of it, which work in place."""

    a: Tensor  # (N, S, c), float32 at least
    b: Tensor  # (N, L, c)
    heads: int
    rising: Callable[[Tensor], Tensor]  # a b^T -> what rises with the weight
    weigh: Callable[[Tensor, int | None], Tensor]  # that -> weights, of one head or of all N
    limit: Tensor  # (H,): what rises, at the radius
    outside: float = 0.0  # stands for what is beyond the radius: its weight is zero
    alone: float = 0.0  # lower bound of a token's own weight


class _RowGroup(NamedTuple):
    """Rows of N that are computed together."""

    pick: slice
    head: int | None  # theirs, or None: all
    limit: float | Tensor


def tiled_attention(form: TileForm, u: Tensor, near: Tensor | None = None) -> Tensor:
    """u (N, L, e + 1) -> (N, S, e) in u's dtype; no gradient.

    `near` (N, blocks, L) bool, on the CPU: keys that a query of a block of `QUERIES` may reach.
    """
    queries, before = form.a.shape[1], u.shape[1] - form.a.shape[1]
    y = u.new_empty(u.shape[0], queries, u.shape[2] - 1)
    with torch.autocast(u.device.type, enabled=False):
        for rows in _row_groups(form, u):
            part = u[rows.pick]
            # one allocation for all tiles: fresh memory costs as much as a product
            room = form.a.new_empty(len(part) * min(queries, QUERIES) * min(u.shape[1], KEYS))
            for block, first in enumerate(range(0, queries, QUERIES)):
                last = min(first + QUERIES, queries)
                tile = _Tile(form, rows, slice(first, last), room)
                end = before + first
                sums = tile.own(part[:, end : before + last], end)
                kept = None
                if near is not None and len(part) == 1 and end:
                    kept = near[rows.pick.start, block, :end].nonzero().flatten()
                if kept is not None and len(kept) <= GATHERED * end:
                    b, values = form.b[rows.pick][:, kept], part[:, kept]
                else:
                    b, values = form.b[rows.pick, :end], part[:, :end]
                for start in range(0, values.shape[1], KEYS):
                    span = slice(start, start + KEYS)
                    tile.add(sums, b[:, span], values[:, span])
                y[rows.pick, first:last] = sums[..., :-1] / sums[..., -1:]
    return y


def _row_groups(form: TileForm, u: Tensor) -> Iterator[_RowGroup]:
    total, length, _ = u.shape
    if u.device.type != "cpu":  # few large operations
        limit = form.limit.repeat(total // form.heads)[:, None, None]
        yield _RowGroup(slice(0, total), None, limit)
        return
    limits = form.limit.tolist()
    step = form.heads * max(1, KEYS // length)  # as many rows of one head as fill a tile
    for head in range(form.heads):
        for start in range(head, total, step):
            rows = slice(start, min(start + step, total), form.heads)
            yield _RowGroup(rows, head, limits[head])


class _Tile:
    """Weights of one block of queries."""

    def __init__(self, form: TileForm, rows: _RowGroup, queries: slice, room: Tensor) -> None:
        self.form, self.rows, self.room = form, rows, room
        self.a = form.a[rows.pick, queries]

    def own(self, u: Tensor, start: int) -> Tensor:
        """The sums (n, S, e + 1) over the block's own tokens, at start .. start + S - 1."""
        form = self.form
        x = form.rising(self.a @ form.b[self.rows.pick, start : start + u.shape[1]].mT)
        itself = x.diagonal(dim1=1, dim2=2).clone()
        x = self._cut(x)
        x.diagonal(dim1=1, dim2=2).copy_(itself)
        w = form.weigh(x, self.rows.head).tril_()
        if form.alone:
            w.diagonal(dim1=1, dim2=2).clamp_min_(form.alone)
        # sums over tiles are kept in float32 at least
        return (w.to(u.dtype) @ u).to(x.dtype)

    def add(self, sums: Tensor, b: Tensor, u: Tensor) -> None:
        """Add the sums over past tokens, b (n, K, c) and u (n, K, e + 1)."""
        rows, queries, _ = self.a.shape
        x = self.room[: rows * queries * b.shape[1]].view(rows, queries, b.shape[1])
        torch.bmm(self.a, b.mT, out=x)
        w = self.form.weigh(self._cut(self.form.rising(x)), self.rows.head).to(u.dtype)
        if w.dtype != sums.dtype:
            sums += w @ u
        elif rows == 1:  # a fifth faster than `baddbmm_`
            sums[0].addmm_(w[0], u[0])
        else:
            sums.baddbmm_(w, u)

    def _cut(self, x: Tensor) -> Tensor:
        limit = self.rows.limit
        if isinstance(limit, Tensor):
            return x.masked_fill_(x < limit, self.form.outside)
        # keeps what is above, hence the last digits
        below = limit - 4 * torch.finfo(x.dtype).eps * abs(limit)
        return torch.threshold_(x, below, self.form.outside)
