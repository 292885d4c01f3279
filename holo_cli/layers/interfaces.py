"""What the backbone asks of the two halves of a block: the token mixer and the feed-forward.

A mixer needs `forward` and `step`, and its last matrix is called `out`; everything else has a
default that is right for most and slower than a formula.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holo_cli.layers.conv import ShortConv
from holo_cli.layers.measure import forward_flops, state_nbytes, zeros

Aux = dict[str, Tensor]  # auxiliary losses by name: scalars, already weighted


class ConvWindows:
    """The last inputs of a block's convolutions while decoding, taken and replaced in order."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        self._before = iter(before)
        self.after: list[Tensor] = []

    def step(self, conv: ShortConv, x: Tensor) -> Tensor:
        """`conv` of x (B, S, C), the positions after those seen so far."""
        y, window = conv.step(x, next(self._before))
        self.after.append(window)
        return y


def convolve(conv: ShortConv | None, x: Tensor, windows: ConvWindows | None) -> Tensor:
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
    """What a block gives its mixer beside the stream, for the switches of the backbone.

    `side`: the model's side stream (`Backbone.side_stream`), which a mixer may replace; the block
    hands it on.
    """

    windows: ConvWindows | None = None  # while decoding, for convolutions inside the mixer
    stream: ValueStream | None = None
    residual_gain: Tensor | None = None  # (1,) each
    embedding_gain: Tensor | None = None
    side: Any = None

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
        """(B, T, C), normalized -> what to add, (B, T, C), and auxiliary losses by name."""

    def active_parameters(self) -> int:
        """Parameters that take part in one token's output; all of them unless routed."""
        return sum(p.numel() for p in self.parameters())


class FeedForward(Part):
    """Works on each token by itself, so training and decoding are the same function."""

    @abstractmethod
    def finish_initialisation(self) -> None:
        """Values beyond the backbone's own (uniform linear layers): a zero output, biases, ..."""

    def flops(self) -> float:
        """Forward FLOPs of one token beyond two for each active parameter."""
        return 0.0


class Mixer(Part):
    """Mixes tokens along time; has a form for decoding beside the one for training.

    A subclass has `out`, its last matrix, whose zero makes a block the identity. Where
    `takes_extras`, `forward` and `step` have a last argument `extras: Extras = NOTHING`. A state
    is a `layers.state.DataState`, a `KVCache`, a tensor with the rows first, a tuple of these, or
    None before the first token.
    """

    takes_extras: ClassVar[bool] = False
    constant_state: ClassVar[bool] = False  # whether `init_state` has its final size already
    out: nn.Linear

    @property
    def mixed_lengths(self) -> bool:
        """Whether `step` takes rows that have read different numbers of tokens, one token each:
        positions are then `layers.positions.RowPositions`, caches `RowsCache`. Default no."""
        return False

    def step_obstacle(self) -> str | None:
        """What keeps `step` of one token from being one graph for all positions, over a state as
        `layers/static.py` makes it; None where nothing does. Default: `mixed_lengths` alone."""
        if self.mixed_lengths:
            return None
        return f"the steps of {type(self).__name__} differ from position to position"

    def finish_initialisation(self) -> None:
        """Values beyond the backbone's own (uniform linear layers): a zero output, biases, ..."""
        nn.init.zeros_(self.out.weight)

    def convolutions(self) -> list[ShortConv]:
        """Those that take their windows from `extras` while decoding, in order; default none."""
        return []

    def init_state(self, batch: int) -> Any:
        """The state before the first token; default None, for a `step` that makes its own."""
        return None

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, S, C), the positions after `state` -> what to add, (B, S, C), and the next state."""

    def state_bytes(self, length: int) -> int:
        """Bytes of state for one row after `length` tokens, in the weights' dtype.

        By default those of a state that is made for it, which costs a pass over `length` zeros
        where it is not constant.
        """
        state = self.init_state(1)
        if not self.constant_state:
            with torch.no_grad():
                state = self.step(zeros(self.out, length), state)[1]
        return state_nbytes(state)

    def store_by_columns(self) -> None:
        """Lay out matrices that the mixer has joined for products of one row on a CPU, for
        decoding; other layers are seen to by `inference/generation/weights.py`. Default none."""
        return

    def disable(self) -> None:
        """Switch the mixing of tokens off, for good: `out` is zero and stays so."""
        nn.init.zeros_(self.out.weight)
        self.out.weight.requires_grad_(False)

    def flops(self, length: float) -> float:
        """Forward FLOPs of one token that looks back on `length` tokens, without its weights'.

        By default the products counted in a forward pass over that many tokens. Below zero where
        weights multiply element by element: they are active, but no products.
        """
        x = zeros(self.out, max(1, round(length)))
        counted = forward_flops(self, x) / x.shape[1]
        return counted - 2.0 * self.active_parameters()

    def decode_flops(self, length: float) -> float:
        """As `flops`, of one token that continues from a state; by default the same."""
        return self.flops(length)
