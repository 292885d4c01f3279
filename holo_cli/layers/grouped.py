"""Products of many groups of rows, each group with its own matrix.

`F.grouped_mm` runs all groups in one call, for float32, bfloat16 and float16 whose rows are a
multiple of 16 bytes; a loop over the groups does the rest (float64, odd sizes, older builds).
The choice depends on the inputs, never on catching an error. To torch.compile each of the two
products is one operator: the sizes of the groups are data, and its own rule for `grouped_mm`
refuses float32.

Legend: P rows, sorted by group; G groups; `ends` (G,) int32, where each group's rows end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def is_groupable(*tensors: Tensor) -> bool:
    """Whether `F.grouped_mm` supports these dtypes and row sizes."""
    return hasattr(F, "grouped_mm") and all(
        t.dtype in GROUPED_DTYPES and t.shape[-1] * t.element_size() % 16 == 0 for t in tensors
    )


def grouped(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """x (P, n), weight (G, n, k) -> (P, k): row p times the matrix of its group; differentiable."""
    y: Tensor = _Grouped.apply(x, weight, ends)
    return y


class _Grouped(torch.autograd.Function):
    """y_p = x_p W_g;  dx_p = dy_p W_g^T;  dW_g = sum over p of g of x_p^T dy_p."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, ends)
        return rows_by_matrices(x, weight, ends)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, ends = ctx.saved_tensors
        dy = grads[0].contiguous()
        dx = rows_by_matrices(dy, weight.mT, ends) if ctx.needs_input_grad[0] else None
        dw = None
        if ctx.needs_input_grad[1]:
            # a transposed weight gets a gradient of the same layout, without a copy
            if weight.is_contiguous():
                dw = rows_by_rows(x, dy, ends)
            else:
                dw = rows_by_rows(dy, x, ends).mT
        return dx, dw, None


def rows_by_matrices(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """(P, n), (G, n, k) -> (P, k)."""
    if torch.compiler.is_compiling():
        y: Tensor = _matrices_operator(x, weight, ends)
        return y
    return _rows_by_matrices(x, weight, ends)


def _rows_by_matrices(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    if is_groupable(x, weight, weight.mT):
        return F.grouped_mm(x, weight, offs=ends)
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return torch.cat([part @ w for part, w in zip(x.split(sizes), weight, strict=True)])


def rows_by_rows(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    """(P, n), (P, k) -> (G, n, k): a^T b of each group's rows; zero for a group without any."""
    if torch.compiler.is_compiling():
        y: Tensor = _rows_operator(a, b, ends)
        return y
    return _rows_by_rows(a, b, ends)


def _rows_by_rows(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    if is_groupable(a, b):
        return F.grouped_mm(a.mT, b, offs=ends)
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    pairs = zip(a.split(sizes), b.split(sizes), strict=True)
    return torch.stack([left.mT @ right for left, right in pairs])


# the kernel may return any strides, and the shape functions below promise contiguous results
@torch.library.custom_op("holo::rows_by_matrices", mutates_args=())
def _matrices_operator(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return _rows_by_matrices(x, weight, ends).contiguous()


@_matrices_operator.register_fake
def _matrices_shape(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[2])


@torch.library.custom_op("holo::rows_by_rows", mutates_args=())
def _rows_operator(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    return _rows_by_rows(a, b, ends).contiguous()


@_rows_operator.register_fake
def _rows_shape(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    return a.new_empty(ends.shape[0], a.shape[1], b.shape[1])


def group_sizes(chosen: Tensor, groups: int) -> Tensor:
    """How often each of 0 .. G - 1 is in `chosen`, int64 of any shape -> (G,) int64."""
    flat = chosen.flatten()
    if torch.compiler.is_compiling():  # bincount's length is data to the compiler
        return flat.new_zeros(groups).scatter_add(0, flat, torch.ones_like(flat))
    return torch.bincount(flat, minlength=groups)


class SortedPairs:
    """Pairs of a token and one of its groups, sorted by group, and the maps in both directions.

    chosen: (N, c) int64, the groups of each token. P = N c pairs.
    """

    def __init__(self, chosen: Tensor, groups: int) -> None:
        flat = chosen.flatten()
        self.per_token = chosen.shape[1]
        self.order = flat.argsort(stable=True)  # (P,) pair, in the order of tokens, at each place
        self.place = torch.empty_like(self.order)  # (P,) place of each pair
        self.place[self.order] = torch.arange(len(flat), device=flat.device)
        self.token = self.order // self.per_token  # (P,) token at each place
        self.counts = group_sizes(flat, groups)
        self.ends = self.counts.cumsum(0).to(torch.int32)  # (G,)

    def spread(self, x: Tensor) -> Tensor:
        """(N, n) of tokens -> (P, n) of pairs, sorted."""
        y: Tensor = _Spread.apply(x, self.token, self.place, self.per_token)
        return y

    def gather(self, y: Tensor) -> Tensor:
        """(P, n) of pairs, sorted -> (N, n), each token's pairs added up."""
        x: Tensor = _Gather.apply(y, self.token, self.place, self.per_token)
        return x

    def by_place(self, values: Tensor) -> Tensor:
        """(N, c, ...) by token -> (P, ...) sorted."""
        return values.flatten(0, 1)[self.order]

    def by_token(self, values: Tensor) -> Tensor:
        """(P, ...) sorted -> (N, c, ...) by token."""
        return values[self.place].unflatten(0, (-1, self.per_token))


def _summed(y: Tensor, place: Tensor, per_token: int) -> Tensor:
    """(P, n) sorted -> (N, n) sums over each token's pairs."""
    if per_token == 1:
        return y[place]
    first = place[::per_token]
    total = y[first]
    for k in range(1, per_token):
        total += y[place[k::per_token]]
    return total


class _Spread(torch.autograd.Function):
    """A gather whose backward is a gather too: the backward of indexing is a slow scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, place: Tensor, per_token: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.per_token = per_token
        return x[token]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        return _summed(grads[0], place, ctx.per_token), None, None, None


class _Gather(torch.autograd.Function):
    """The transpose of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, token: Tensor, place: Tensor, per_token: int) -> Tensor:
        ctx.save_for_backward(token)
        return _summed(y, place, per_token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (token,) = ctx.saved_tensors
        return grads[0][token], None, None, None
