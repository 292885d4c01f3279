"""What the skeleton asks of the two halves of a block: the token mixer and the feed-forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, Self

from torch import Tensor, nn

Aux = dict[str, Tensor]  # auxiliary losses by name: scalars, already weighted


class MixerState(Protocol):
    """What one mixer remembers of each row while decoding; a value, see `models.base.State`."""

    def select(self, rows: Tensor) -> Self:
        """The state of the given rows, (R,) int64: a copy."""
        ...

    def tensors(self) -> Iterator[Tensor]:
        """Everything remembered so far."""
        ...


class Part(nn.Module, ABC):
    """Half of a block, (B, T, C) -> (B, T, C), added to the residual stream by the block."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        """(B, T, C), normalised -> what to add, (B, T, C), and auxiliary losses by name."""

    @abstractmethod
    def finish_initialisation(self) -> None:
        """Values beyond the skeleton's own (uniform linear layers): zero outputs, spreads, ..."""

    def active_parameters(self) -> int:
        """Parameters that take part in one token's output; all of them unless routed."""
        return sum(p.numel() for p in self.parameters())


class FeedForward(Part):
    """Works on each token by itself, so training and decoding are the same function."""


class Mixer(Part):
    """Mixes tokens along time; has a form for decoding beside the one for training."""

    @abstractmethod
    def init_state(self, batch: int) -> Any:
        """The state before the first token."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, S, C), the positions after `state` -> what to add, (B, S, C), and the next state."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of state for one row after `length` tokens, in the weights' dtype."""

    @abstractmethod
    def flops(self, length: float) -> float:
        """Forward FLOPs of one token that looks back on `length` tokens, without its weights'."""
