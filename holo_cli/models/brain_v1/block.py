"""brain-v1's block: the backbone's with a language adapter after it, skipped at random in training.

Legend: B rows, T positions, S positions of a step, C width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.layers.interfaces import Aux, ConvWindows, Extras, FeedForward, ValueStream
from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone, Block
from holo_cli.models.brain_v1.adapters import LanguageAdapters
from holo_cli.models.brain_v1.attention import BrainAttention
from holo_cli.models.brain_v1.config import Config


class Side(NamedTuple):
    """The side stream: each token's language, (B, S), where there are adapters, the layer whose
    prediction is trained in this pass, -1 for none, and the stream after it, for its gate.
    torch.compile cannot follow a drawn layer: to it the draw is `drawn`, (1,), the number of an
    exit, and the streams after all exits are kept."""

    languages: Tensor | None
    exit_layer: int = -1
    drawn: Tensor | None = None
    kept: list[Tensor] = []  # noqa: RUF012 - replaced for each pass, never written to otherwise


class BrainBlock(Block):
    """The backbone's block with a language adapter after it, skipped at random in training."""

    mixer: BrainAttention

    def __init__(
        self, config: Config, mixer: BrainAttention, mlp: FeedForward, keep: float
    ) -> None:
        super().__init__(config, mixer, mlp)
        self.keep = keep
        self.adapters = LanguageAdapters(config) if config.adapters else None

    def active_parameters(self) -> int:
        adapter = self.adapters.active_parameters() if self.adapters is not None else 0
        return super().active_parameters() + adapter

    def forward(
        self, x: Tensor, stream: ValueStream | None = None, side: Side | None = None
    ) -> tuple[Tensor, Side | None, Aux]:
        y, side, aux = super().forward(x, stream, side)
        y = self.adapt(y, side)
        if self.training and self.keep < 1:
            # row by row; what is kept is scaled up, so that evaluation needs no correction
            kept = torch.rand(x.shape[0], 1, 1, device=x.device) < self.keep
            y = x + (y - x) * (kept / self.keep).to(x.dtype)
        return y, side, aux

    def step(
        self,
        x: Tensor,
        state: Any,
        windows: tuple[Tensor, ...],
        stream: ValueStream | None = None,
        side: Side | None = None,
    ) -> tuple[Tensor, Side | None, Any, tuple[Tensor, ...]]:
        x, side, state, windows = super().step(x, state, windows, stream, side)
        return self.adapt(x, side), side, state, windows

    def adapt(self, x: Tensor, side: Side | None) -> Tensor:
        """With what the adapter of each token's language adds."""
        if self.adapters is None:
            return x
        return x + self.adapters(rms_norm(x), side.languages if side is not None else None)[0]

    def append_to_cache(
        self, x: Tensor, state: Any, windows: tuple[Tensor, ...], stream: ValueStream | None
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """The states after tokens that left below this layer."""
        seen = ConvWindows(windows)
        extras = Extras(seen, stream, self.residual_gain, self.embedding_gain)
        state = self.mixer.append_to_cache(self.read(x, seen), state, extras)
        return state, tuple(seen.after)


def brain_blocks(model: Backbone) -> list[BrainBlock]:
    """The model's blocks, first to last."""
    return [b for b in model.blocks if isinstance(b, BrainBlock)]
