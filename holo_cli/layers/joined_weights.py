"""Matrices that read the same vector as one matrix, for decoding on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class JoinedWeights(NamedTuple):
    """The weights of some linear layers one after another, stored by columns: one product of a row
    with it is quicker than one with each (docs/results/speed-log.md). The layers' weights are views
    of it."""

    weight: Tensor  # (sum of sizes, C)
    sizes: list[int]

    @classmethod
    @torch.no_grad()
    def of(cls, layers: Sequence[nn.Module]) -> Self | None:
        """Move the weights of linear layers without biases into one tensor; None where one of them
        is no plain layer in float32."""
        linear = [layer for layer in layers if type(layer) is nn.Linear]
        weights = [layer.weight for layer in linear]
        if len(linear) < len(layers) or any(w.dtype is not torch.float32 for w in weights):
            return None
        whole = torch.cat([weight.data for weight in weights]).t().contiguous().t()
        sizes = [len(weight) for weight in weights]
        for weight, part in zip(weights, whole.split(sizes), strict=True):
            weight.data = part
        return cls(whole, sizes)

    def holds(self, layers: Sequence[nn.Module]) -> bool:
        """Whether the layers' weights are still views of it, not replaced since (by weights of
        eight bits, say)."""
        row = self.weight.stride(0) * self.weight.element_size()
        address = self.weight.data_ptr()
        for layer, size in zip(layers, self.sizes, strict=True):
            if type(layer) is not nn.Linear or layer.weight.data_ptr() != address:
                return False
            address += size * row
        return True

    def products(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (B, C) -> what each layer makes of it, (B, size)."""
        return nn.functional.linear(x, self.weight).split(self.sizes, dim=1)
