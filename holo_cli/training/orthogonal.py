"""Nearly semi-orthogonal matrices by products alone, the arithmetic of Muon.

Every step puts each singular value s of a matrix through an odd polynomial a s + b s^3 + c s^5. Two
forms: five steps with the polynomial that Muon was published with (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/), and three with polynomials of their own that do the
same for less than half of the arithmetic. Legend: N matrices, r rows, c columns, r <= c.
"""

from __future__ import annotations

import torch
from torch import Tensor

# one polynomial for every step, tuned for the steepest slope at zero (Jordan et al. 2024)
PUBLISHED = (3.4445, -4.7750, 2.0315)
# Each is the best approximation of 1, by its largest error, on the interval that those before it
# make of [0.01, 1]; Amsel et al. 2025 (arXiv 2505.16932) prove that no others do better together.
# The last is scaled so that updates are about as large as those of five published steps.
# `python -m benchmarks.orthogonal --polynomials` computes them.
THREE_STEPS = (
    (8.09337, -23.62043, 17.44615),
    (3.63659, -2.72193, 0.53655),
    (2.39517, -1.77944, 0.40735),
)
SLACK = 1.05  # the bound of the largest singular value over what rounding may make of it
BLOCK = 128  # rows of a block of a symmetric product: smaller products run slower than they save


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, r, c) with r <= c -> nearly semi-orthogonal matrices of the same shape, in `dtype`.

    Singular values end in about [0.7, 1.2] after five steps and in [0.66, 1.15] after three, which
    is all that Muon needs, if they are above a hundredth of the largest; lower ones stay lower.
    """
    x = matrices.to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    if steps == 3:
        return _three_steps(x)
    a, b, c = PUBLISHED
    for _ in range(steps):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return x


def _three_steps(x: Tensor) -> Tensor:
    """`x`: of Frobenius norm 1.

    S = x x^T is all that the polynomials P_n and their product Q depend on: S_n = P_n S P_n and
    y = Q x. All but the first and the last product are then of (r, r) matrices, which pays where c
    is at least 2 r.
    """
    wide = x.shape[2] >= 2 * x.shape[1]
    square = symmetric_product(x, x.mT)
    fourth = symmetric_product(square, square)
    # |S^2|^(1/4) is at least the largest singular value and hardly larger; the Frobenius norm is so
    # much larger that making up for it takes a step
    # of |S^2| at norm 1; a matrix of almost nothing has less, and stays so
    least = x.shape[1] ** -1.5
    bound = fourth.float().norm(dim=(1, 2), keepdim=True).clamp_min(least).sqrt() * SLACK**2
    square, fourth = square / bound.to(x.dtype), fourth / bound.square().to(x.dtype)
    root = bound.sqrt().to(x.dtype)
    if not wide:
        x = x / root
    factor: Tensor | None = None
    for step, (a, b, c) in enumerate(THREE_STEPS):
        if step:
            fourth = symmetric_product(square, square)
        poly = torch.add(b * square, fourth, alpha=c)
        last = step == len(THREE_STEPS) - 1
        if wide:
            poly.diagonal(dim1=1, dim2=2).add_(a)
            # polynomials of one matrix commute, so their products are symmetric too
            factor = poly if factor is None else symmetric_product(poly, factor)
            if not last:
                square = symmetric_product(symmetric_product(poly, square), poly)
        else:
            x = torch.baddbmm(x, poly, x, beta=a)
            if not last:
                square = symmetric_product(x, x.mT)
    return x if factor is None else (factor / root) @ x


def symmetric_product(a: Tensor, b: Tensor) -> Tensor:
    """(N, r, c) @ (N, c, r) where the result is symmetric: blocks of rows up to the diagonal, and
    the rest mirrored, which is 5/8 of the arithmetic in four blocks.

    Done where it was measured to be faster: on CPUs, in float32, from three blocks on.
    """
    rows = a.shape[1]
    if a.device.type != "cpu" or a.dtype != torch.float32 or rows < 3 * BLOCK:
        return a @ b
    product = a.new_empty(len(a), rows, rows)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        product[:, start:end, :end] = a[:, start:end] @ b[:, :, :end]
        product[:, :start, start:end] = product[:, start:end, :start].mT
    return product


def polar_factor(matrices: Tensor) -> Tensor:
    """(N, r, c) -> U V^T of the decomposition U S V^T, which both forms approximate."""
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    return u @ v
