"""A state space with one decay per head, over a whole sequence, as products of matrices.

    S_t = a_t S_{t-1} + b_t x_t^T        (N, P) per head; a_t in (0, 1] per head
    y_t = S_t^T c_t                      b and c (N) are shared by all heads

(Mamba-2's state space duality, Dao & Gu 2024.) In chunks of L positions, with G the running sum of
log a inside a chunk,

    Y = (C B^T * exp(G_t - G_s) for s <= t) X + exp(G_t) (C S_before)
    S_after = exp(G_end) S_before + B^T (exp(G_end - G_s) X)

so that only the states between chunks are sequential. The backward pass is written out and computes
everything again from the inputs, so that nothing of size L per position and head is kept. Tiles of
(H, L, L) are computed a few chunks at a time in one buffer, because on CPUs their cost is passes
over memory, not products. Logs are float32 at least, exponents are never above 0, and nothing is
divided by a cumulative product.

Legend: B rows, T positions, H heads, P channels per head, N numbers of state per channel, L
positions of a chunk, M chunks of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 64  # positions: C S costs 1 / L of a state per position, the tiles L numbers per head
TILE = 1 << 18  # numbers of tiles computed at a time: they stay in a core's cache


class Chunks(NamedTuple):
    """Inputs in chunks: x (M, L, H, P), b and c (M, L, N), total (M, L, H)."""

    x: Tensor
    b: Tensor
    c: Tensor
    total: Tensor  # G


def scan(
    x: Tensor, b: Tensor, c: Tensor, log_a: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x (B, T, H, P), b and c (B, T, N), log a (B, T, H) <= 0 in float32 at least, state (B, N, H,
    P) before the first position -> y (B, T, H, P) and the state after the last one.

    Products are in the dtype of x. No gradient flows into `state` or out of the last state.
    """
    y, last = _SSDScan.apply(x, b, c, log_a, state)
    return y, last


def step(x: Tensor, b: Tensor, c: Tensor, log_a: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`scan` of one position by the recurrence, for decoding."""
    new = b[:, 0, :, None, None].to(state.dtype) * x.to(state.dtype)  # (B, N, H, P)
    state = torch.addcmul(new, log_a.exp()[..., None], state)
    y = (c[:, :, None].to(state.dtype) @ state.flatten(2).unsqueeze(1)).view(x.shape)
    return y.to(x.dtype), state


class _SSDScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b: Tensor, c: Tensor, log_a: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, b, c, log_a, state)
        inputs = _chunked(x, b, c, log_a)
        before, last = _states(inputs, x.shape[0], state)
        read = torch.bmm(inputs.c, before)  # (M, L, H P)
        y = read.view(inputs.x.shape) * inputs.total.exp().to(read.dtype)[..., None]
        values = inputs.x.transpose(1, 2)  # (M, H, L, P)
        for at, weights, _ in _tiles(inputs):
            inside = torch.bmm(weights.flatten(0, 1), values[at].flatten(0, 1))
            y[at] += inside.view(-1, *values.shape[1:]).transpose(1, 2)
        ctx.mark_non_differentiable(last)
        return y.view(x.shape[0], -1, *x.shape[2:])[:, : x.shape[1]], last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, b, c, log_a, state = ctx.saved_tensors
        rows, length = x.shape[:2]
        inputs = _chunked(x, b, c, log_a)
        before, _ = _states(inputs, rows, state)
        _, size, heads, width = inputs.x.shape
        dy = _in_chunks(grads[0].to(x.dtype), size)  # (M, L, H, P)

        # through reading the state before a chunk
        decay_in = inputs.total.exp()  # (M, L, H)
        seen = (dy * decay_in.to(dy.dtype)[..., None]).flatten(2)
        d_total = (seen * torch.bmm(inputs.c, before)).view(dy.shape).sum(-1, dtype=decay_in.dtype)
        dc = torch.bmm(seen, before.mT)
        d_before = torch.bmm(inputs.c.mT, seen)  # (M, N, H P)

        # through the states, from the last chunk to the first
        whole = decay_in[:, -1]  # (M, H)
        d_after, d_whole = _states_backward(d_before, before, whole, rows)
        d_end = d_whole * whole
        keep = (inputs.total[:, -1:] - inputs.total).exp()  # (M, L, H)
        kept = inputs.x * keep.to(x.dtype)[..., None]
        db = torch.bmm(kept.flatten(2), d_after.mT)
        d_kept = torch.bmm(inputs.b, d_after).view(dy.shape)
        dx = d_kept * keep.to(x.dtype)[..., None]
        d_keep = (kept * d_kept).sum(-1, dtype=decay_in.dtype)
        d_total -= d_keep
        d_end += d_keep.sum(1)

        # within each chunk
        values, d_read = inputs.x.transpose(1, 2), dy.transpose(1, 2)  # (M, H, L, P)
        for at, weights, decay in _tiles(inputs):
            v, g = values[at].flatten(0, 1), d_read[at].flatten(0, 1)
            d_values = torch.bmm(weights.flatten(0, 1).mT, g).view(-1, heads, size, width)
            dx[at] += d_values.transpose(1, 2)
            d_weights = torch.bmm(g, v.mT).view(weights.shape)
            d_score = torch.mul(d_weights, decay, out=decay).sum(1).tril_().to(x.dtype)
            dc[at] += torch.bmm(d_score, inputs.b[at])
            db[at] += torch.bmm(d_score.mT, inputs.c[at])
            slope = torch.mul(d_weights, weights, out=decay)  # with respect to G_t - G_s
            d_total[at] += (slope.sum(3) - slope.sum(2)).transpose(1, 2)
        d_total[:, -1] += d_end
        d_log = d_total.flip(1).cumsum(1).flip(1)

        def whole_rows(t: Tensor) -> Tensor:
            return t.reshape(rows, -1, *t.shape[2:])[:, :length]

        return whole_rows(dx), whole_rows(db), whole_rows(dc), whole_rows(d_log), None


def _chunked(x: Tensor, b: Tensor, c: Tensor, log_a: Tensor) -> Chunks:
    size = min(CHUNK, x.shape[1])
    parts = (_in_chunks(t, size) for t in (x, b.to(x.dtype), c.to(x.dtype), log_a))
    inputs = Chunks(*parts)
    return inputs._replace(total=inputs.total.cumsum(1))


def _in_chunks(t: Tensor, size: int) -> Tensor:
    """(B, T, ...) -> (M, L, ...), zeros after the end: nothing is added and nothing decays."""
    if extra := -t.shape[1] % size:
        t = torch.cat((t, t.new_zeros(t.shape[0], extra, *t.shape[2:])), dim=1)
    return t.reshape(-1, size, *t.shape[2:])


def _states(inputs: Chunks, rows: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """States before each chunk, (M, N, H P) in the dtype of x, and the last, (B, N, H, P)."""
    keep = (inputs.total[:, -1:] - inputs.total).exp().to(inputs.x.dtype)
    own = torch.bmm(inputs.b.mT, (inputs.x * keep[..., None]).flatten(2))
    own = own.view(rows, -1, inputs.b.shape[2], *inputs.x.shape[2:])  # (B, chunks, N, H, P)
    chunk_decay = inputs.total[:, -1].exp().view(rows, -1, 1, inputs.x.shape[2], 1)
    now = torch.zeros_like(own[:, 0], dtype=inputs.total.dtype) if state is None else state
    before = torch.empty_like(own)
    for chunk in range(own.shape[1]):
        before[:, chunk] = now
        now = torch.addcmul(own[:, chunk].to(now.dtype), chunk_decay[:, chunk], now)
    return before.flatten(0, 1).flatten(2), now


def _states_backward(
    d_before: Tensor, before: Tensor, whole: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    """Gradients of the states before each chunk through reading, (M, N, H P), and each chunk's
    decay (M, H) -> gradients of the states after each chunk, (M, N, H P), and of the decay."""
    heads = whole.shape[1]
    shape = (rows, -1, before.shape[1], heads, before.shape[2] // heads)
    d_read, old = d_before.view(shape), before.view(shape)
    chunk_decay = whole.view(rows, -1, 1, heads, 1)
    d_after = torch.empty_like(d_read)
    d_whole = torch.empty_like(whole).view(rows, -1, heads)
    now = torch.zeros_like(d_read[:, 0], dtype=whole.dtype)
    for chunk in reversed(range(old.shape[1])):
        d_after[:, chunk] = now
        d_whole[:, chunk] = (old[:, chunk] * now).sum((1, 3))
        now = torch.addcmul(d_read[:, chunk].to(now.dtype), chunk_decay[:, chunk], now)
    return d_after.view(before.shape), d_whole.view(whole.shape)


def _tiles(inputs: Chunks) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(chunks, weights, decays) a few chunks at a time, both (m, H, L, L); for s > t weights are
    zero and decays undefined. The next iteration overwrites both."""
    chunks, size, heads = inputs.total.shape
    several = max(1, TILE // (heads * size * size))
    total = inputs.total.transpose(1, 2)  # (M, H, L)
    buffer = total.new_empty(min(several, chunks), heads, size, size)
    product = torch.empty_like(buffer, dtype=inputs.x.dtype)
    for first in range(0, chunks, several):
        at = slice(first, min(first + several, chunks))
        used = at.stop - at.start
        score = torch.bmm(inputs.c[at], inputs.b[at].mT).tril_()
        decay = torch.sub(total[at, :, :, None], total[at, :, None], out=buffer[:used])
        decay.clamp_(max=0).exp_()
        weights = torch.mul(decay, score[:, None], out=product[:used])
        yield at, weights, decay
