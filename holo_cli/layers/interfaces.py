"""What the backbone asks of the two halves of a block: the token mixer and the feed-forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from holo_cli.layers.conv import ShortConv

Aux = dict[str, Tensor]  # auxiliary losses by name: scalars, already weighted


class MixerState(Protocol):
    """What one mixer remembers of each row while decoding; a value, see `models.base.State`."""

    def select(self, rows: Tensor) -> Self:
        """The state of the given rows, (R,) int64: a copy."""
        ...

    def tensors(self) -> Iterator[Tensor]:
        """Everything remembered so far."""
        ...


class Windows:
    """The last inputs of a block's convolutions while decoding, taken and replaced in order."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        self._before = iter(before)
        self.after: list[Tensor] = []

    def step(self, conv: ShortConv, x: Tensor) -> Tensor:
        """`conv` of x (B, S, C), the positions after those seen so far."""
        y, window = conv.step(x, next(self._before))
        self.after.append(window)
        return y


def convolve(conv: ShortConv | None, x: Tensor, windows: Windows | None) -> Tensor:
    """`conv` of whole sequences, or of the next positions where there are `windows`."""
    if conv is None:
        return x
    return conv(x) if windows is None else windows.step(conv, x)


@dataclass
class ValueStream:
    """What runs beside the residual stream for the layers' values; one for each forward pass.

    `first`: values of the first layer, kept for the others (value residual, Zhou et al. 2024, arXiv
    2410.17897); `embedded`: (B, S, C), the tokens' own value embeddings.
    """

    residual: bool
    embedded: Tensor | None
    first: Tensor | None = None


@dataclass
class Extras:
    """What a block gives its mixer beside the stream, for the switches of the backbone."""

    windows: Windows | None = None  # while decoding, for convolutions inside the mixer
    stream: ValueStream | None = None
    residual_gain: Tensor | None = None  # (1,) each
    embedding_gain: Tensor | None = None

    def values(self, v: Tensor) -> Tensor:
        """A layer's own values, (B, S, H, d) or (B, S, C) -> with what is added to them."""
        stream = self.stream
        if stream is None:
            return v
        own = v
        if self.residual_gain is not None and stream.first is not None:
            v = v + self.residual_gain.to(v.dtype) * stream.first.view(v.shape)
        if self.embedding_gain is not None and stream.embedded is not None:
            v = v + self.embedding_gain.to(v.dtype) * stream.embedded.view(v.shape)
        if stream.residual and stream.first is None:
            stream.first = own
        return v


NOTHING = Extras()


class Part(nn.Module, ABC):
    """Half of a block, (B, T, C) -> (B, T, C), added to the residual stream by the block."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        """(B, T, C), normalised -> what to add, (B, T, C), and auxiliary losses by name."""

    @abstractmethod
    def finish_initialisation(self) -> None:
        """Values beyond the backbone's own (uniform linear layers): zero outputs, spreads, ..."""

    def active_parameters(self) -> int:
        """Parameters that take part in one token's output; all of them unless routed."""
        return sum(p.numel() for p in self.parameters())


class FeedForward(Part):
    """Works on each token by itself, so training and decoding are the same function."""


class Mixer(Part):
    """Mixes tokens along time; has a form for decoding beside the one for training.

    Where `takes_extras`, `forward` and `step` have a last argument `extras: Extras = NOTHING`.
    """

    takes_extras: ClassVar[bool] = False

    def convolutions(self) -> list[ShortConv]:
        """Those that take their windows from `extras` while decoding, in order; default none."""
        return []

    @abstractmethod
    def init_state(self, batch: int) -> Any:
        """The state before the first token."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, S, C), the positions after `state` -> what to add, (B, S, C), and the next state."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of state for one row after `length` tokens, in the weights' dtype."""

    def disable(self) -> None:
        """Switch the mixing of tokens off, for good: nothing is written into the stream.

        Zeroes and freezes `out`, the last matrix; a mixer made of mixers has none of its own.
        """
        out = getattr(self, "out", None)
        for parameter in out.parameters() if isinstance(out, nn.Module) else ():
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)

    @abstractmethod
    def flops(self, length: float) -> float:
        """Forward FLOPs of one token that looks back on `length` tokens, without its weights'."""
