"""What decoding asks of a model with early exit, and what it tells. Light to import."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from holo_cli.models.base import State

NEVER = 2.0  # a threshold above every possible confidence


@runtime_checkable
class SupportsEarlyExit(Protocol):
    """A model with early exit."""

    exit_threshold: float

    def depths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T) int64 -> number of layers that each of them passes, (B, T) int64."""
        ...


def mean_depth(state: State) -> float | None:
    """Mean number of layers passed by the tokens read so far; None if the state does not count
    it, or its rows have read different numbers of tokens."""
    passed = getattr(state, "passed", None)
    if passed is None or not isinstance(state.position, int) or not state.position:
        return None
    return float(passed.double().mean()) / state.position
