"""Inner products of rows at two positions, times all decays between the two.

    <x, y>_ts = sum_c x_tc exp(G_tc - G_sc) y_sc      for s < t, and on request for s = t

G is the running sum of log decays <= 0 inside a chunk. With one decay per position the exponential
is a factor (L, L). With one per channel, splitting it into exp(G_t) and exp(-G_s) would overflow,
and writing it out would take L x L x K numbers. Here the chunk is halved recursively: two positions
s < t are in different halves of exactly one segment, and with R the value of G at the end of its
earlier half,

    exp(G_t - G_s) = exp(G_t - R) exp(R - G_s),

where neither exponent is above 0, whatever the decays. So a level is one product of matrices, and
all log2(L) levels together cost L log2(L) K exponentials. (Secondary chunking, Yang et al. 2023,
arXiv 2312.06635, is the same with two levels.) The backward pass is written out: the gradient of G
is sum(x dx) at t minus sum(y dy) at s, without another pass over the levels.

Legend: N chunks, L positions, K channels, n tensors of rows on the left, m on the right, J segments
of a chunk. Products come in the order (x_1, y_1), (x_1, y_2), ..., (x_n, y_m), each (N, L, L) and
zero for s > t; the last x also meets the right side at its own position (s = t).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def scalar_products(
    lefts: Sequence[Tensor], rights: Sequence[Tensor], total: Tensor
) -> tuple[Tensor, ...]:
    """lefts n x (N, L, K), rights m x (N, L, K), G (N, L, 1) -> n m products (N, L, L)."""
    size = total.shape[1]
    past = torch.ones(size, size, dtype=torch.bool, device=total.device).tril()
    decay = (total - total.mT).masked_fill(~past, float("-inf")).exp()
    strict = decay.tril(-1)
    return tuple((x @ y.mT) * (decay if x is lefts[-1] else strict) for x in lefts for y in rights)


def channel_products(
    lefts: Sequence[Tensor], rights: Sequence[Tensor], total: Tensor
) -> tuple[Tensor, ...]:
    """lefts n x (N, L, K), rights m x (N, L, K), G (N, L, K), L a power of two -> n m products
    (N, L, L)."""
    out: tuple[Tensor, ...] = _ChannelProducts.apply(len(lefts), total, *lefts, *rights)
    return out


class _ChannelProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, total: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(total, *rows)
        ctx.count = count
        lefts, rights = rows[:count], rows[count:]
        chunks, size, _ = total.shape
        out = total.new_zeros(count, len(rights), chunks, size, size)
        for half in _halves(size):
            x, y, _, _ = _decayed(lefts, rights, total, half)
            block = torch.bmm(x, y.mT).view(chunks, -1, count, half, len(rights), half)
            _block(out, half).copy_(block)
        for y, product in zip(rights, out[-1], strict=True):
            product.diagonal(dim1=1, dim2=2).copy_((lefts[-1] * y).sum(2))
        return tuple(out.flatten(0, 1).unbind())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total, *rows = ctx.saved_tensors
        count = ctx.count
        lefts, rights = rows[:count], rows[count:]
        chunks, size, width = total.shape
        d_out = torch.stack(grads).view(count, len(rights), chunks, size, size)
        d_lefts, d_rights = ([torch.zeros_like(t) for t in side] for side in (lefts, rights))
        for half in _halves(size):
            x, y, later, earlier = _decayed(lefts, rights, total, half)
            d_block = _block(d_out, half).reshape(-1, count * half, len(rights) * half)
            d_x = torch.bmm(d_block, y).view(chunks, -1, count, half, width)
            d_y = torch.bmm(d_block.mT, x).view(chunks, -1, len(rights), half, width)
            for i, d_left in enumerate(d_lefts):
                _segments(d_left, half)[:, :, 1].addcmul_(d_x[:, :, i], later)
            for i, d_right in enumerate(d_rights):
                _segments(d_right, half)[:, :, 0].addcmul_(d_y[:, :, i], earlier)
        # before the diagonal is added, where G cancels
        d_total = lefts[0] * d_lefts[0]
        for t, d in zip(lefts[1:], d_lefts[1:], strict=True):
            d_total.addcmul_(t, d)
        for t, d in zip(rights, d_rights, strict=True):
            d_total.addcmul_(t, d, value=-1)
        for i, (right, d_right) in enumerate(zip(rights, d_rights, strict=True)):
            d_diagonal = d_out[-1, i].diagonal(dim1=1, dim2=2)[..., None]
            d_lefts[-1].addcmul_(d_diagonal, right)
            d_right.addcmul_(d_diagonal, lefts[-1])
        return None, d_total, *d_lefts, *d_rights


def _halves(size: int) -> list[int]:
    """1, 2, 4, ... size / 2: half the length of a segment at each level."""
    assert size & (size - 1) == 0, size
    return [1 << level for level in range(size.bit_length() - 1)]


def _segments(x: Tensor, half: int) -> Tensor:
    """(N, L, K) -> (N, J, 2, half, K): J segments of two halves."""
    return x.view(x.shape[0], -1, 2, half, x.shape[2])


def _decayed(
    lefts: Sequence[Tensor], rights: Sequence[Tensor], total: Tensor, half: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two sides of one level's products, (N J, n half, K) and (N J, m half, K), and their
    factors exp(G_t - R) and exp(R - G_s), (N, J, half, K)."""
    chunks, _, width = total.shape
    both = _segments(total, half)
    middle = both[:, :, 0, -1:]
    later, earlier = (both[:, :, 1] - middle).exp_(), (middle - both[:, :, 0]).exp_()
    segments = later.shape[1]
    if torch.compiler.is_compiling():  # which fuses this, and refuses to write into a slice
        x = torch.stack([_segments(left, half)[:, :, 1] * later for left in lefts], dim=2)
        y = torch.stack([_segments(right, half)[:, :, 0] * earlier for right in rights], dim=2)
    else:
        x = total.new_empty(chunks, segments, len(lefts), half, width)
        for i, left in enumerate(lefts):
            torch.mul(_segments(left, half)[:, :, 1], later, out=x[:, :, i])
        y = total.new_empty(chunks, segments, len(rights), half, width)
        for i, right in enumerate(rights):
            torch.mul(_segments(right, half)[:, :, 0], earlier, out=y[:, :, i])
    return (
        x.view(-1, len(lefts) * half, width),
        y.view(-1, len(rights) * half, width),
        later,
        earlier,
    )


def _block(products: Tensor, half: int) -> Tensor:
    """The part of (n, m, N, L, L) that one level computes: a view (N, J, n, half, m, half)."""
    lefts, rights, chunks, size, _ = products.shape
    segments = size // (2 * half)
    whole = products.view(lefts, rights, chunks, segments, 2 * half, segments, 2 * half)
    inside = whole.diagonal(dim1=3, dim2=5)[:, :, :, half:, :half]  # (n, m, N, half, half, J)
    return inside.permute(2, 5, 0, 3, 1, 4)
