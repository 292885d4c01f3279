"""Gravity without a softmax: y_i = sum_j w_ij u_j / sum_j w_ij m_j, w_ij = (eps + d_ij^2)^(-p/2).

Written as a custom autograd function over blocks of queries. A block's squared distances are one
matrix product of augmented coordinates, [-2q, 1, |q|^2 + eps] [k, |k|^2, 1]^T, which become weights
in place; the backward pass computes them again, so memory beyond inputs and outputs is
O(BLOCK x L) per head, and no tensor has a place for every pair's d coordinates.

Unusual: there is no exponential and no running maximum, because inverse powers of numbers between
`floor` and a few hundred stay well inside float32's range. Distances are float32 at least, also
under autocast: an expanded distance of near points in bfloat16 is all rounding error. On hardware
that multiplies float32 in fewer digits (TF32) they may come out below zero, hence `floor`.

Legend: N = B H rows and heads, S queries (the last S of L positions), d coordinates, e per head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # queries at a time
FLOOR = 0.01  # no softened squared distance is less: the least `eps` that the config allows


def pull(q: Tensor, k: Tensor, u: Tensor, eps: Tensor, power: Tensor | float) -> Tensor:
    """q (N, S, d), k (N, L, d), u (N, L, e + 1), eps (N, 1, 1) -> y (N, S, e) in u's dtype.

    `u` holds m v and, in its last column, what the sum of weights counts (m). `power` is a number,
    or (N, 1, 1) where it is learned. q and k are float32 at least; gradients reach all tensors.
    """
    y: Tensor = _Pull.apply(q, k, u, eps, power)
    return y


def blocks(queries: int, total: int) -> Iterator[tuple[slice, slice]]:
    """Slices of queries, each with the slice of keys up to the last query's own."""
    before = total - queries
    for start in range(0, queries, BLOCK):
        end = min(start + BLOCK, queries)
        yield slice(start, end), slice(0, before + end)


class _Pull(torch.autograd.Function):
    """With r = 1/(eps + d^2), w = r^(p/2), s = sum w m, y = (sum w u)/s and g = [dy, -dy.y]/s:

    du_j = sum_i w_ij g_i,  dw_ij = g_i . u_j,  d(d^2) = -(p/2) r w dw,  dp = 1/2 sum w dw log r.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, u: Tensor, eps: Tensor, power: Tensor | float
    ) -> Tensor:
        learned = isinstance(power, Tensor)
        with torch.autocast(q.device.type, enabled=False):
            a, b = _augment(q, k, eps)
            y = u.new_empty(q.shape[0], q.shape[1], u.shape[2] - 1)
            total = u.new_empty(q.shape[0], q.shape[1], 1)
            for rows, columns in blocks(q.shape[1], k.shape[1]):
                w = _weights(a[:, rows], b[:, columns], power)[1]
                sums = torch.bmm(w.to(u.dtype), u[:, columns])
                total[:, rows] = sums[..., -1:]
                torch.div(sums[..., :-1], sums[..., -1:], out=y[:, rows])
        ctx.save_for_backward(q, k, u, eps, power if learned else None, y, total)
        ctx.power = None if learned else power
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, u, eps, power, y, total = ctx.saved_tensors
        learned = ctx.power is None
        power = power if learned else ctx.power
        d = q.shape[2]
        with torch.autocast(q.device.type, enabled=False):
            dy = grads[0]
            g = torch.cat((dy, -torch.linalg.vecdot(dy, y).unsqueeze(-1)), dim=-1) / total
            a, b = _augment(q, k, eps)
            da, db = torch.empty_like(a), torch.zeros_like(b)
            du = torch.zeros_like(u, dtype=q.dtype)
            dp = torch.zeros_like(power) if learned else None
            for rows, columns in blocks(q.shape[1], k.shape[1]):
                r, w = _weights(a[:, rows], b[:, columns], power)
                du[:, columns] += torch.bmm(w.to(u.dtype).mT, g[:, rows])
                change = w * torch.bmm(g[:, rows], u[:, columns].mT)  # w dw, zero in the future
                if dp is not None:
                    dp += 0.5 * (change * r.log()).sum((1, 2), keepdim=True)
                change.mul_(r).mul_(-0.5 * power)
                da[:, rows] = torch.bmm(change, b[:, columns])
                db[:, columns].baddbmm_(change.mT, a[:, rows])
            dq = -2 * da[..., :d] + 2 * q * da[..., d + 1 :]
            dk = db[..., :d] + 2 * k * db[..., d : d + 1]
            deps = da[..., d + 1 :].sum(1, keepdim=True)
        return dq, dk, du.to(u.dtype), deps, dp


def _augment(q: Tensor, k: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """a (N, S, d + 2), b (N, L, d + 2) with a b^T = eps + d^2."""
    a = q.new_empty(*q.shape[:2], q.shape[2] + 2)
    a[..., :-2] = -2 * q
    a[..., -2] = 1
    a[..., -1:] = torch.linalg.vecdot(q, q).unsqueeze(-1) + eps
    b = k.new_empty(*k.shape[:2], k.shape[2] + 2)
    b[..., :-2] = k
    b[..., -2] = torch.linalg.vecdot(k, k)
    b[..., -1] = 1
    return a, b


def _weights(a: Tensor, b: Tensor, power: Tensor | float) -> tuple[Tensor, Tensor]:
    """r = 1/(eps + d^2) and w = r^(p/2), (N, S, L), w zero in the future. p = 2: they are one."""
    r = torch.bmm(a, b.mT)
    r = r.clamp_min_(FLOOR).reciprocal_()
    if isinstance(power, Tensor):
        w = (0.5 * power * r.log()).exp_()
    else:
        w = r if power == 2 else r.pow(0.5 * power)
    w[:, :, b.shape[1] - a.shape[1] :].tril_()
    return r, w
