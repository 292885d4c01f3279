"""From hidden states to logits: one matrix, and a soft cap that keeps logits in a range."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.precision import wide


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap), elementwise; the identity for cap = 0 (Gemma 2, 2024)."""
    return logits if cap == 0 else cap * torch.tanh(logits / cap)


class Head(nn.Module):
    """(..., C) -> logits (..., V), in float32 at least.

    `weight` is a Parameter, (V, C); for a tied model that of the embedding. The training loss
    reads `weight` and `cap` and never calls `forward`, so that (B, T, V) is never whole in memory.
    """

    def __init__(self, weight: Tensor, cap: float) -> None:
        super().__init__()
        self.weight = weight
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        logits = nn.functional.linear(x, self.weight)
        return soft_cap(logits.to(wide(logits.dtype)), self.cap)

    def rows(self, tokens: Tensor) -> Tensor:
        """The rows (..., C) of some tokens (...)."""
        return nn.functional.embedding(tokens, self.weight)
