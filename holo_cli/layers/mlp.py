"""The feed-forward half of a block: W_out relu(W_in x)^2, no biases (Primer, So et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.conv import CANON_TAPS, ShortConv
from holo_cli.layers.device import eager_cpu
from holo_cli.layers.interfaces import Aux, ConvWindows, FeedForward, convolve


def relu_squared(x: Tensor) -> Tensor:
    """relu(x)^2, elementwise."""
    if eager_cpu(x) and torch.is_grad_enabled():
        y: Tensor = _ReluSquared.apply(x)
        return y
    return nn.functional.relu(x).square()


class _ReluSquared(torch.autograd.Function):
    """y = h^2 with h = relu(x); dx = 2 h dy: h is zero just where the relu cuts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        h = torch.relu(x)
        ctx.save_for_backward(h)
        return h * h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        return (h * grads[0]).mul_(2.0)


class MLP(FeedForward):
    """(B, T, C) -> (B, T, C) through `hidden` units, all of them for every token.

    `canon`: with a Canon convolution over the hidden units' inputs.
    """

    def __init__(
        self, width: int, hidden: int, dropout: float = 0.0, *, canon: bool = False
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.canon = ShortConv(hidden, CANON_TAPS, linear=True) if canon else None
        self.dropout = nn.Dropout(dropout)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, windows: ConvWindows | None = None) -> tuple[Tensor, Aux]:
        hidden = convolve(self.canon, self.up(x), windows)
        return self.dropout(self.down(relu_squared(hidden))), {}
