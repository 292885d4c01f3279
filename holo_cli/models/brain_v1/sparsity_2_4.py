"""2:4 sparse weights, trained densely (S-STE, Hu et al. 2024).

In each group of four weights along the input, the two of smallest magnitude become zero and the
others move towards zero by the larger of those two magnitudes, so that a weight that leaves the set
shrinks to zero continuously; the gradient passes to the dense weight unchanged. GPUs with sparse
tensor cores can run such a matrix at up to twice the speed. Nothing here does: on a CPU the pattern
costs a few passes over the weights and saves no time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# The factor that brings the sparse weights s nearest to normally distributed w: E[w s] / E[s^2]. A
# constant, as in the paper: refitted at every step it makes weights flip in and out of the set.
SCALE = 1.4838


class _SoftThreshold(torch.autograd.Function):
    """Groups of four along the last dimension; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        size = weight.abs().unflatten(-1, (-1, 4))
        a, b, c, d = size.unbind(-1)
        low1, high1, low2, high2 = (
            torch.minimum(a, b), torch.maximum(a, b), torch.minimum(c, d), torch.maximum(c, d),
        )  # fmt: skip
        second = torch.minimum(torch.maximum(low1, low2), torch.minimum(high1, high2))
        left = (size - second[..., None]).clamp_min_(0).flatten(-2)
        return left.mul_(SCALE).copysign_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def sparsify_2_4(weight: Tensor, dim: int = -1) -> Tensor:
    """Same shape, at most two of four non-zero along `dim`, exactly two unless magnitudes are
    equal. The size of `dim` must be a multiple of 4."""
    done: Tensor = _SoftThreshold.apply(weight.transpose(dim, -1).contiguous())
    return done.transpose(dim, -1)


class Sparse24Linear(nn.Linear):
    """A linear layer without bias whose weight is 2:4 sparse along its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def effective(self) -> Tensor:
        """The sparse weight, (outputs, inputs)."""
        return sparsify_2_4(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.effective())
