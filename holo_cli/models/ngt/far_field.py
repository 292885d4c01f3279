"""Gravity in less than quadratic time: far blocks of tokens attract as one body each.

The tree code of Barnes & Hut (1986, Nature 324) with blocks of time in place of cells, so that
causality needs no sorting. The past of a token is

    its own block and the one before it   token by token
    `count` older blocks                  token by token: those whose bodies weigh the most for it
    all other older blocks                one body each

The body of a block has the sum of its masses M, the mean of its values by mass, and in place of a
squared distance |q - c|^2 + (1 - SPREAD) s^2, where c is the centroid by mass and s^2 the mean of
|k_j - c|^2 by mass. |q - c|^2 + s^2 is the mean of the squared distances, which gives too small a
weight, for inverse powers are convex (Jensen); |q - c|^2 gives one too large. A body is a mean of
augmented keys with another |k|^2, so bodies run through the same products as tokens.

Each query chooses its own blocks, from bodies that are whole before its own block began: what a
token sees depends on no later one, and decoding chooses the same. MuSe (arXiv 2509.10406) clusters
queries and keys with a dipole term; MoBA (arXiv 2502.13189) lets queries choose blocks by mean keys
and drops the others.

The work per query is 2 W + count W tokens and T / W bodies, W tokens in a block. Tokens run in
tiles of one block of keys with all the queries that need it: those of two blocks and the ones that
chose it. Memory beyond inputs and outputs is a copy of the queries for each choice.

Legend: N = B H, S queries (the last S of L positions), c = d + 2 augmented coordinates, e per head,
K bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from holo_cli.models.ngt.gravity_attention import powers, squared_plus_eps

QUERIES = 256  # that meet bodies at a time
SPREAD = 0.5  # share of s^2 that is left out; 0 to 0.6 cannot be told apart, see far-field.md


class Bodies(NamedTuple):
    """Blocks of tokens as one particle each."""

    points: Tensor  # (..., K, d + 1): centroid, and what stands for its squared norm
    mass: Tensor  # (..., K, 1)
    values: Tensor  # (..., K, e), means by mass


def bodies(k: Tensor, m: Tensor, v: Tensor, block: int) -> Bodies:
    """k (..., L, d), m (..., L, 1), v (..., L, e) -> the bodies of whole blocks, K = L // block."""
    whole = k.shape[-2] // block * block
    k, m, v = (x[..., :whole, :].unflatten(-2, (-1, block)) for x in (k, m, v))
    mass = m.sum(-2)
    share = m / mass.unsqueeze(-2)
    centre = (share * k).sum(-2)
    square = (share * k.square().sum(-1, keepdim=True)).sum(-2)
    norm = (1 - SPREAD) * square + SPREAD * centre.square().sum(-1, keepdim=True)
    values = (share * v.to(share.dtype)).sum(-2).to(v.dtype)
    return Bodies(torch.cat((centre, norm), -1), mass, values)


def old_blocks(position: int, block: int) -> int:
    """Blocks before the one before the block of a position."""
    return max(0, position // block - 1)


def far_field_attention(
    q: Tensor,
    k: Tensor,
    u: Tensor,
    far: Bodies,
    eps: Tensor,
    power: float,
    block: int,
    count: int,
) -> Tensor:
    """q (N, S, d), k (N, L, d), u (N, L, e + 1) = [m v, m], eps (N, 1, 1) -> y (N, S, e).

    q, k and `far`, which holds at least the bodies that the last query meets, are float32 at least;
    y has the dtype of u. Differentiable in all tensors.
    """
    run = _far_field_attention
    if torch.compiler.is_compiling():  # not as a decorator, which imports the compiler
        run = torch.compiler.disable(run)
    return run(q, k, u, far, eps, power, block, count)


def _far_field_attention(
    q: Tensor,
    k: Tensor,
    u: Tensor,
    far: Bodies,
    eps: Tensor,
    power: float,
    block: int,
    count: int,
) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        one = torch.ones_like
        a = torch.cat((-2 * q, one(q[..., :1]), q.square().sum(-1, keepdim=True) + eps), -1)
        b = torch.cat((k, k.square().sum(-1, keepdim=True), one(k[..., :1])), -1)
        points = torch.cat((far.points, one(far.mass)), -1)
        sums = torch.cat((far.mass * far.values, far.mass), -1)
        # Unlike `gravity_attention` all in float32: tiles differ in size, and on a CPU each size
        # of a bfloat16 product is compiled again.
        y: Tensor = _FarField.apply(a, b, u.to(a.dtype), points, sums, power, block, count)
    return y.to(u.dtype)


class _Choices(NamedTuple):
    """Pairs of a query and a block it chose, in the order of rows and blocks."""

    queries: Tensor  # (P,) int64, into N S
    ends: list[int]  # of the pairs of each row and block


class _FarField(torch.autograd.Function):
    """The formulas of `gravity_attention`, where r = 1 / (a b) and da = c b, db = c^T a."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        u: Tensor,
        points: Tensor,
        sums: Tensor,
        power: float,
        block: int,
        count: int,
    ) -> Tensor:
        shape = (b.shape[1] - a.shape[1], block)
        total = a.new_zeros(*a.shape[:2], u.shape[2])
        picks = torch.full((*a.shape[:2], count), -1, dtype=torch.int64, device=a.device)
        for rows, old in _chunks(a, *shape):
            w = powers(_inverse(a[:, rows], points[:, : old.shape[1]]), 0.5 * power)
            w.masked_fill_(~old, 0)
            _choose(w, sums[:, None, : old.shape[1], -1], old, picks[:, rows])
            total[:, rows] = w @ sums[:, : old.shape[1]]
        choices = _in_order(picks, -(-b.shape[1] // block))
        chosen = a.flatten(0, 1)[choices.queries]
        found = total.new_empty(len(chosen), u.shape[2])
        for tile in _tiles(a, b.shape[1], block, choices):
            w = powers(_inverse(tile.queries(a, chosen), b[tile.row, tile.keys]), 0.5 * power)
            tile.hide_future(w)
            tile.give(w @ u[tile.row, tile.keys], total, found)
        total.flatten(0, 1).index_add_(0, choices.queries, found)
        y = total[..., :-1] / total[..., -1:]
        ctx.save_for_backward(a, b, u, points, sums, y, total[..., -1:], picks, choices.queries)
        ctx.power, ctx.block, ctx.ends = power, block, choices.ends
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, b, u, points, sums, y, total, picks, pairs = ctx.saved_tensors
        power, block = ctx.power, ctx.block
        with torch.autocast(a.device.type, enabled=False):
            dy = grads[0]
            g = torch.cat((dy, -torch.linalg.vecdot(dy, y).unsqueeze(-1)), dim=-1) / total
            da, db, du = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(u)
            dpoints = torch.zeros_like(points)
            dsums = torch.zeros_like(sums)
            for rows, old in _chunks(a, b.shape[1] - a.shape[1], block):
                met = slice(0, old.shape[1])
                r = _inverse(a[:, rows], points[:, met])
                w = powers(r, 0.5 * power).masked_fill_(~old, 0)
                _leave_out(w, picks[:, rows])
                dsums[:, met] += w.mT @ g[:, rows]
                c = (g[:, rows] @ sums[:, met].mT).mul_(w).mul_(r)
                c.mul_(-0.5 * power)
                da[:, rows] = c @ points[:, met]
                dpoints[:, met] += c.mT @ a[:, rows]
            choices = _Choices(pairs, ctx.ends)
            chosen, wanted = a.flatten(0, 1)[pairs], g.flatten(0, 1)[pairs]
            found = torch.empty_like(chosen)
            for tile in _tiles(a, b.shape[1], block, choices):
                queries, keys = tile.queries(a, chosen), b[tile.row, tile.keys]
                r = _inverse(queries, keys)
                w = powers(r, 0.5 * power)
                tile.hide_future(w)
                mine = tile.queries(g, wanted)
                du[tile.row, tile.keys] = w.mT @ mine
                c = (mine @ u[tile.row, tile.keys].mT).mul_(w).mul_(r)
                c.mul_(-0.5 * power)
                tile.give(c @ keys, da, found)
                db[tile.row, tile.keys] = c.mT @ queries
            da.flatten(0, 1).index_add_(0, pairs, found)
        return da, db, du, dpoints, dsums, None, None, None


def _inverse(a: Tensor, b: Tensor) -> Tensor:
    """(..., S, c), (..., K, c) -> 1 / (eps + d^2)."""
    return squared_plus_eps(a, b.mT).reciprocal_()


def _chunks(a: Tensor, start: int, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of queries that meet bodies, with which of them each may meet, (R, K) bool."""
    for first in range(0, a.shape[1], QUERIES):
        last = min(first + QUERIES, a.shape[1])
        if met := old_blocks(start + last - 1, block):
            own = torch.arange(start + first, start + last, device=a.device) // block
            yield slice(first, last), torch.arange(met, device=a.device) < own[:, None] - 1


def _choose(w: Tensor, mass: Tensor, old: Tensor, picks: Tensor) -> None:
    """Take the bodies of the largest weight times mass out of w (N, R, K), into `picks`.

    `picks` (N, R, count) keeps -1 where a query has fewer old blocks.
    """
    count = min(picks.shape[2], w.shape[2])
    if count == 0:
        return
    rank = (w * mass.to(w.dtype)).masked_fill_(~old, -1)
    best = rank.topk(count, dim=2).indices
    valid = best < old.sum(1)[:, None]
    picks[..., :count] = best.where(valid, -1)
    w.scatter_(2, best, 0)


def _leave_out(w: Tensor, picks: Tensor) -> None:
    """As `_choose` did: the weights (N, R, K) of the bodies in `picks` become zero."""
    # a body that is none has no weight, so the first of them takes the place of what is missing
    kept = w[..., 0].clone()
    w.scatter_(2, picks.clamp_min(0), 0)
    w[..., 0] = torch.where((picks == 0).any(2), 0, kept)


def _in_order(picks: Tensor, blocks: int) -> _Choices:
    """(N, S, count), blocks in all -> the pairs by row and block."""
    rows = torch.arange(len(picks), device=picks.device)[:, None, None] * blocks
    places = (picks + rows).flatten()
    pairs = (picks.flatten() >= 0).nonzero()[:, 0]
    order = pairs[places[pairs].argsort(stable=True)]
    counts = places[order].bincount(minlength=len(picks) * blocks)
    return _Choices(order // max(1, picks.shape[2]), counts.cumsum(0).tolist())


class _FarTile(NamedTuple):
    """One block of keys of one row with its queries: near ones, then those that chose it."""

    row: int
    keys: slice
    near: slice  # queries of its own block and the next
    chosen: slice  # pairs
    before: int  # keys of the block before the first near query
    own: int  # near queries of its own block

    def queries(self, x: Tensor, chosen: Tensor) -> Tensor:
        """x (N, S, .), chosen (P, .) -> (queries, .)."""
        return torch.cat((x[self.row, self.near], chosen[self.chosen]))

    def give(self, y: Tensor, near: Tensor, chosen: Tensor) -> None:
        """Add y (queries, .) to near (N, S, .), and write it to chosen (P, .)."""
        count = self.near.stop - self.near.start
        near[self.row, self.near] += y[:count]
        chosen[self.chosen] = y[count:]

    def hide_future(self, w: Tensor) -> None:
        w[: self.own].tril_(self.before)


def _tiles(a: Tensor, length: int, block: int, choices: _Choices) -> Iterator[_FarTile]:
    start, blocks = length - a.shape[1], -(-length // block)
    done = 0
    for row in range(len(a)):
        for number in range(blocks):
            first, end = number * block, choices.ends[row * blocks + number]
            low, high = max(first, start), min(first + 2 * block, length)
            if high <= low and end == done:
                continue
            own = max(0, min(first + block, length) - low)
            near = slice(low - start, max(high, low) - start)
            keys = slice(first, min(first + block, length))
            yield _FarTile(row, keys, near, slice(done, end), low - first, own)
            done = end
