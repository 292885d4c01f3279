"""Gravity without a softmax: y_i = sum_j w_ij u_j / sum_j w_ij m_j, w_ij = (eps + d_ij^2)^(-p/2).

Written as a custom autograd function over blocks of queries. A block's squared distances are one
matrix product of augmented coordinates, [-2q, 1, |q|^2 + eps] [k, |k|^2, 1]^T, which become weights
in place. Short sequences keep the reciprocals for the backward pass, as attention keeps its
weights; for long ones they are computed again, so that memory beyond inputs and outputs is
O(BLOCK x L) per head. Differences of coordinates are never formed.

Unlike softmax attention there is no exponential and no running maximum: inverse powers of numbers
between `FLOOR` and a few hundred stay well inside float32's range. Distances are float32 at least,
also under autocast: in bfloat16 the expanded distance of near points is all rounding error. Their
reciprocals are rounded to the dtype of the values, and all that follows is in it: attention rounds
its weights by as much (a relative error of 2^-9).

Legend: N = B H rows and heads, S queries (the last S of L positions), d coordinates, e per head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # queries at a time
KEPT = 512  # positions up to which reciprocals are kept for the backward pass
FLOOR = 0.01  # lower bound of eps + d^2: the smallest `eps` that the config allows


def gravity_attention(
    q: Tensor, k: Tensor, u: Tensor, eps: Tensor, power: Tensor | float
) -> Tensor:
    """q (N, S, d), k (N, L, d), u (N, L, e + 1), eps (N, 1, 1) -> y (N, S, e) in u's dtype.

    `u` holds m v and, in its last column, m. `power` is a number, or (N, 1, 1) where it is learned.
    q and k are float32 at least. Differentiable in all tensors.
    """
    y: Tensor = _GravityAttention.apply(q, k, u, eps, power)
    return y


def blocks(queries: int, total: int) -> Iterator[tuple[slice, slice]]:
    """Slices of queries, each with the slice of keys up to the last query's own."""
    before = total - queries
    for start in range(0, queries, BLOCK):
        end = min(start + BLOCK, queries)
        yield slice(start, end), slice(0, before + end)


class _GravityAttention(torch.autograd.Function):
    """With r = 1/(eps + d^2), w = r^(p/2), s = sum w m, y = (sum w u)/s and g = [dy, -dy.y]/s:

    du_j = sum_i w_ij g_i,  dw_ij = g_i . u_j,  c = d(eps + d^2) = -(p/2) r w dw,
    dq_i = 2 sum_j c_ij (q_i - k_j),  dk_j = 2 sum_i c_ij (k_j - q_i),  dp = 1/2 sum w dw log r.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, u: Tensor, eps: Tensor, power: Tensor | float
    ) -> Tensor:
        learned = isinstance(power, Tensor)
        keep = k.shape[1] <= KEPT and any(ctx.needs_input_grad)
        kept: list[Tensor | None] = []
        with torch.autocast(q.device.type, enabled=False):
            a, b = augment(q, k, eps)
            y = u.new_empty(q.shape[0], q.shape[1], u.shape[2] - 1)
            total = u.new_empty(q.shape[0], q.shape[1], 1)
            for rows, columns in blocks(q.shape[1], k.shape[1]):
                r, w, log_r = inverse_power_weights(a[:, rows], b[:, :, columns], power, u.dtype)
                sums = torch.bmm(w, u[:, columns])
                total[:, rows] = sums[..., -1:]
                torch.div(sums[..., :-1], sums[..., -1:], out=y[:, rows])
                if keep:
                    kept += [r, w, log_r]
        ctx.save_for_backward(q, k, u, eps, power if learned else None, y, total, *kept)
        ctx.power = None if learned else power
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, u, eps, power, y, total, *kept = ctx.saved_tensors
        learned = ctx.power is None
        power = power if learned else ctx.power
        d = q.shape[2]
        with torch.autocast(q.device.type, enabled=False):
            dy = grads[0]
            g = torch.cat((dy, -torch.linalg.vecdot(dy, y).unsqueeze(-1)), dim=-1).div_(total)
            a, b = augment(q, k, eps)
            ends = [_with_one(x, -0.5 * power).to(u.dtype) for x in (q, k)]
            da, db = q.new_empty(*q.shape[:2], d + 1), k.new_zeros(*k.shape[:2], d + 1)
            du = torch.zeros_like(u, dtype=q.dtype)
            dp = torch.zeros_like(power) if learned else None
            for i, (rows, columns) in enumerate(blocks(q.shape[1], k.shape[1])):
                r, w, log_r = (
                    kept[3 * i : 3 * i + 3]
                    if kept
                    else inverse_power_weights(a[:, rows], b[:, :, columns], power, u.dtype)
                )
                du[:, columns] += torch.bmm(w.mT, g[:, rows])
                c = torch.bmm(g[:, rows], u[:, columns].mT).mul_(w)  # zero in the future
                if dp is not None and log_r is not None:
                    dp += 0.5 * (c * log_r).sum((1, 2), keepdim=True, dtype=q.dtype)
                c.mul_(r)
                da[:, rows] = torch.bmm(c, ends[1][:, columns])
                db[:, columns] += torch.bmm(c.mT, ends[0][:, rows])
            dq = 2 * torch.addcmul(-da[..., :d], q, da[..., d:])
            dk = 2 * torch.addcmul(-db[..., :d], k, db[..., d:])
            deps = da[..., d:].sum(1, keepdim=True)
        return dq, dk, du.to(u.dtype), deps, dp


def augment(q: Tensor, k: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """a (N, S, d + 2), b (N, d + 2, L) with a b = eps + d^2."""
    if torch.compiler.is_compiling():  # which fuses this, and refuses to write into columns
        one, squares = torch.ones_like(q[..., :1]), k.square().sum(-1, keepdim=True)
        a = torch.cat((-2 * q, one, q.square().sum(-1, keepdim=True) + eps), dim=-1)
        return a, torch.cat((k, squares, torch.ones_like(squares)), dim=-1).mT
    a = q.new_empty(*q.shape[:2], q.shape[2] + 2)
    torch.mul(q, -2, out=a[..., :-2])
    a[..., -2] = 1
    a[..., -1:] = torch.linalg.vecdot(q, q).unsqueeze(-1) + eps
    b = k.new_empty(*k.shape[:2], k.shape[2] + 2)
    b[..., :-2] = k
    b[..., -2] = torch.linalg.vecdot(k, k)
    b[..., -1] = 1
    return a, b.mT


def _with_one(x: Tensor, scale: Tensor | float) -> Tensor:
    """scale [x, 1]: (N, S, d) -> (N, S, d + 1)."""
    return torch.cat((x, torch.ones_like(x[..., :1])), dim=-1).mul_(scale)


def inverse_power_weights(
    a: Tensor, b: Tensor, power: Tensor | float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """r = 1/(eps + d^2), w = r^(p/2), and log r where p is learned: each (N, S, L) in `dtype`.

    w is zero in the future: the last S columns are a square. Logarithms are taken in float32, which
    is both more accurate and faster than bfloat16.
    """
    squared = squared_plus_eps(a, b)
    log_r = None
    if isinstance(power, Tensor):
        r = squared.reciprocal().to(dtype)
        log_squared = squared.log_()
        log_r = log_squared.neg().to(dtype)
        w = log_squared.mul_(-0.5 * power).exp_().to(dtype)
    else:
        r = squared.reciprocal_().to(dtype)
        w = powers(r, 0.5 * power)
    w[:, :, w.shape[2] - w.shape[1] :].tril_()
    return r, w, log_r


def squared_plus_eps(a: Tensor, b: Tensor) -> Tensor:
    """The product of augmented coordinates, (N, S, d + 2) and (N, d + 2, L), or without N."""
    squared = a @ b
    if torch.compiler.is_compiling() or (
        a.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest"
    ):
        squared.clamp_min_(FLOOR)  # TF32 products may come out below eps
    return squared


def powers(r: Tensor, exponent: float) -> Tensor:
    """r^exponent as a new tensor; 2, 3 and 4 by products, several times faster than `pow`."""
    if exponent in (2, 4):
        return r.square() if exponent == 2 else r.square().square_()
    if exponent == 3:
        return r.square().mul_(r)
    return r.clone() if exponent == 1 else r.pow(exponent)


def powers_(r: Tensor, exponent: float) -> Tensor:
    """r^exponent in place; what is zero stays zero, also with an exponent of zero."""
    if exponent in (1, 2, 4):
        for _ in range({1: 0, 2: 1, 4: 2}[int(exponent)]):
            r.square_()
        return r
    if exponent == 3:
        return r.mul_(r.square())
    return r.sign_() if exponent == 0 else r.pow_(exponent)
