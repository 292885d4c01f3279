"""Weights in eight bits, for decoding: a third of the time of float32 products with one row.

Each row of a matrix (an output channel) has a scale, its largest absolute value over 127, rounded
up to a bfloat16 so that it is exact wherever it is used:

    W ~ s q,   q = round(W / s) in -127 .. 127        weight-only: activations are not quantised

Few rows of activations on a CPU are multiplied in bfloat16 by PyTorch's kernel for such weights,
with sums in float32. Everything else, a prompt or the loss of a text, multiplies by s q in float32,
so evaluation measures the loss of the weights that decoding uses. The rounding of activations to
bfloat16 comes on top in decoding; it is smaller than that of the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.head import Head, soft_cap
from holo_cli.layers.precision import wide

FEW_ROWS = 16  # up to here the kernel is the faster way; more rows are bound by arithmetic
_LARGEST = 127


class Int8Weight(nn.Module):
    """A matrix (N, K): `q` int8 and `scale` (N,) bfloat16; `weight` is what it stands for."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            scale = _rounded_up(weight.float().abs().amax(dim=1).clamp_min(1e-12) / _LARGEST)
            rounded = (weight.float() / scale.float()[:, None]).round_()
            self.q = nn.Parameter(rounded.to(torch.int8).contiguous(), requires_grad=False)
            self.register_buffer("scale", scale, persistent=False)
        self.scale: Tensor

    @property
    def weight(self) -> Tensor:
        """s q, (N, K) float32: computed at each use."""
        return self.q.float() * self.scale.float()[:, None]

    def product(self, x: Tensor) -> Tensor:
        """x (..., K) -> x W^T (..., N), in the dtype of `x`."""
        rows = x.reshape(-1, x.shape[-1])
        if x.device.type == "cpu" and 0 < rows.shape[0] <= FEW_ROWS:
            y = torch._weight_int8pack_mm(rows.bfloat16(), self.q, self.scale)
            return y.to(x.dtype).view(*x.shape[:-1], self.q.shape[0])
        return nn.functional.linear(x, self.weight.to(x.dtype))

    def rows(self, numbers: Tensor) -> Tensor:
        """The rows of W with these numbers, (..., K) float32."""
        return self.q[numbers].float() * self.scale[numbers].float()[..., None]


class Int8Linear(nn.Module):
    """A linear layer of such weights, with its bias if it has one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.matrix = Int8Weight(linear.weight)
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight_was_read = False  # by something that does not call `forward`

    @property
    def weight(self) -> Tensor:
        self.weight_was_read = True
        return self.matrix.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.matrix.product(x)
        return y if self.bias is None else y + self.bias


class Int8Embedding(nn.Module):
    """Token ids -> rows of a matrix that a tied head may share."""

    def __init__(self, matrix: Int8Weight) -> None:
        super().__init__()
        self.matrix = matrix

    @property
    def weight(self) -> Tensor:
        return self.matrix.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.matrix.rows(tokens)


class Int8Head(Head):
    """The head of a model on such weights."""

    def __init__(self, matrix: Int8Weight, cap: float) -> None:
        nn.Module.__init__(self)
        self.matrix = matrix
        self.cap = cap

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.matrix.weight

    def forward(self, x: Tensor) -> Tensor:
        logits = self.matrix.product(x)
        return soft_cap(logits.to(wide(logits.dtype)), self.cap)

    def rows(self, tokens: Tensor) -> Tensor:
        return self.matrix.rows(tokens)


def _rounded_up(scale: Tensor) -> Tensor:
    """The next bfloat16 that is not below, so that no quotient exceeds the largest integer."""
    rounded = scale.bfloat16()
    bits = rounded.view(torch.int16) + (rounded.float() < scale).to(torch.int16)
    return bits.view(torch.bfloat16)
