"""What every token mixer offers to the skeleton: a form for training and a form for decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, Self

from torch import Tensor, nn

Aux = dict[str, Tensor]


class MixerState(Protocol):
    """What one mixer remembers of each row while decoding; a value, see `models.base.State`."""

    def select(self, rows: Tensor) -> Self:
        """The state of the given rows, (R,) int64: a copy."""
        ...

    def tensors(self) -> Iterator[Tensor]:
        """Everything remembered so far."""
        ...


class Mixer(nn.Module, ABC):
    """Mixes tokens along time. `out` is its last linear layer, which starts at zero."""

    out: nn.Linear

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        """(B, T, C) -> the mixed (B, T, C) and auxiliary losses by name."""

    @abstractmethod
    def init_state(self, batch: int) -> Any:
        """The state before the first token."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, S, C), the positions after `state` -> the mixed (B, S, C) and the next state."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of state for one row after `length` tokens, in the weights' dtype."""

    @abstractmethod
    def flops(self, length: float) -> float:
        """Forward FLOPs of one token that looks back on `length` tokens, without projections."""
