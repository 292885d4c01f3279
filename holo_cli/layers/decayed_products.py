"""Products of rows at two positions, faded by all decays between the two.

    <x, y>_ts = sum_c x_tc exp(G_tc - G_sc) y_sc      for s < t, and for s = t where that is wanted

G is the running sum of log decays <= 0 inside a chunk. With one decay per position the exponential
is a factor (L, L). With one per channel, splitting it into exp(G_t) and exp(-G_s) would overflow,
and writing it out would take L x L x K numbers. Here the chunk is halved again and again: two
positions s < t are in different halves of exactly one segment, and with R the value of G at the end
of its earlier half,

    exp(G_t - G_s) = exp(G_t - R) exp(R - G_s),

where neither exponent is above 0, whatever the decays. So a level is one product of matrices, and
all log2(L) levels together cost L log2(L) K exponentials. (Secondary chunking, Yang et al. 2023,
arXiv 2312.06635, has the same purpose with two levels.) The backward pass is written out, because
the gradient of G needs no level of its own: it is sum(x dx) at t minus sum(y dy) at s.

Legend: N chunks, L positions, K channels, n rows on the left per position, m on the right; the last
row on the left also meets the right side at its own position (s = t).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scalar_products(left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    """left (N, L, n, K), right (N, L, m, K), G (N, L, 1) -> (N, L, n, L, m), zero where s > t."""
    chunks, size, rows, _ = left.shape
    ones = torch.ones(size, size, dtype=torch.bool, device=left.device)
    past = torch.stack([ones.tril(-1)] * (rows - 1) + [ones.tril()], dim=1)  # (L, n, L)
    gap = (total - total.mT)[:, :, None].masked_fill(~past, float("-inf"))  # (N, L, n, L)
    score = left.flatten(1, 2) @ right.flatten(1, 2).mT
    return score.view(chunks, size, rows, size, -1) * gap.exp()[..., None]


def channel_products(left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    """left (N, L, n, K), right (N, L, m, K), G (N, L, K), L a power of two -> (N, L, n, L, m),
    zero where s > t."""
    out: Tensor = _ChannelProducts.apply(left, right, total)
    return out


class _ChannelProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, total: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, total)
        chunks, size, rows, _ = left.shape
        out = left.new_zeros(chunks, size, rows, size, right.shape[2])
        for half in _halves(size):
            later, earlier = _factors(total, half)
            x = _later(left, half) * later
            y = _earlier(right, half) * earlier
            block = torch.bmm(_matrices(x), _matrices(y).mT)
            _block(out, half).copy_(block.view(chunks, -1, *block.shape[1:]))
        _diagonal(out).copy_((left[:, :, -1:] * right).sum(3))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right, total = ctx.saved_tensors
        (d_out,) = grads
        d_left, d_right = torch.zeros_like(left), torch.zeros_like(right)
        for half in _halves(left.shape[1]):
            later, earlier = _factors(total, half)
            x = _later(left, half) * later
            y = _earlier(right, half) * earlier
            d_block = _block(d_out, half).flatten(0, 1)
            d_x = torch.bmm(d_block, _matrices(y)).view(x.shape)
            d_y = torch.bmm(d_block.mT, _matrices(x)).view(y.shape)
            _later(d_left, half).addcmul_(d_x, later)
            _earlier(d_right, half).addcmul_(d_y, earlier)
        # before the diagonal, on which G cancels
        d_total = (left * d_left).sum(2) - (right * d_right).sum(2)
        d_diagonal = _diagonal(d_out)[..., None]
        d_left[:, :, -1] += (d_diagonal * right).sum(2)
        d_right.addcmul_(d_diagonal, left[:, :, -1:])
        return d_left, d_right, d_total


def _halves(size: int) -> list[int]:
    """1, 2, 4, ... size / 2: half the length of a segment at each level."""
    assert size & (size - 1) == 0, size
    return [1 << level for level in range(size.bit_length() - 1)]


def _segments(x: Tensor, half: int) -> Tensor:
    """(N, L, ...) -> (N, J, 2, half, ...): J segments of two halves."""
    return x.view(x.shape[0], -1, 2, half, *x.shape[2:])


def _later(x: Tensor, half: int) -> Tensor:
    return _segments(x, half)[:, :, 1]


def _earlier(x: Tensor, half: int) -> Tensor:
    return _segments(x, half)[:, :, 0]


def _factors(total: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """exp(G_t - R) of later halves and exp(R - G_s) of earlier ones, (N, J, half, 1, K) each."""
    earlier, later = _earlier(total, half), _later(total, half)
    middle = earlier[:, :, -1:]
    return (later - middle).exp_()[..., None, :], (middle - earlier).exp_()[..., None, :]


def _matrices(x: Tensor) -> Tensor:
    """(N, J, half, n, K) -> (N J, half n, K)."""
    return x.view(-1, x.shape[2] * x.shape[3], x.shape[4])


def _block(score: Tensor, half: int) -> Tensor:
    """Of (N, L, n, L, m), what pairs of halves make of it: a view (N, J, half n, half m)."""
    chunks, size, rows, _, columns = score.shape
    segments = size // (2 * half)
    whole = score.view(chunks, segments, 2 * half * rows, segments, 2 * half * columns)
    return whole.diagonal(dim1=1, dim2=3).movedim(-1, 1)[:, :, half * rows :, : half * columns]


def _diagonal(score: Tensor) -> Tensor:
    """Of (N, L, n, L, m), the last row on the left at its own position: a view (N, L, m)."""
    return score[:, :, -1].diagonal(dim1=1, dim2=2).mT
