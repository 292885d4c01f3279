"""What decoding asks of a model with early exit."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

NEVER = 2.0  # a threshold above every possible confidence


@runtime_checkable
class SupportsEarlyExit(Protocol):
    """A model with early exit."""

    exit_threshold: float

    def depths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T) int64 -> number of layers that each of them passes, (B, T) int64."""
        ...
