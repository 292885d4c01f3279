"""The modern transformer skeleton: everything of a model but its mixing of tokens.

All models but vanilla's classic recipe are this skeleton with their own mixer in each block, so
that a comparison varies the mechanism and nothing else:

    x = norm(embedding(tokens))                        # (B, T, C), no positions added
    x = x + mixer(norm(x));  x = x + mlp(norm(x))      # `layers` times
    logits = soft_cap(norm(x) W^T)

Unusual: norms have no gains (a matrix always follows that can learn them), output projections
start at zero so that every block starts as the identity, and nothing has a bias.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holo_cli.layers.conv import ShortConv
from holo_cli.layers.embedding import Embedding
from holo_cli.layers.head import Head
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.parts import Aux, FeedForward, Mixer, MixerState
from holo_cli.model_config import SkeletonConfig
from holo_cli.models.base import Description, Hidden, LanguageModel, State


@dataclass(frozen=True)
class SkeletonState(State):
    """Position, each block's mixer state and convolution inputs, and the last token."""

    position: int
    mixers: tuple[MixerState, ...]
    convs: tuple[Tensor, ...]  # each (B, K - 1, C); none without convolutions
    last: Tensor  # (B,) int64, -1 before the first token

    def select(self, rows: Tensor) -> SkeletonState:
        return replace(
            self,
            mixers=tuple(m.select(rows) for m in self.mixers),
            convs=tuple(c.index_select(0, rows) for c in self.convs),
            last=self.last.index_select(0, rows),
        )

    def tensors(self) -> Iterator[Tensor]:
        for mixer in self.mixers:
            yield from mixer.tensors()
        yield from self.convs
        yield self.last


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); with `conv` the mixer reads a convolution."""

    def __init__(self, config: SkeletonConfig, mixer: Mixer, mlp: FeedForward) -> None:
        super().__init__()
        self.conv = ShortConv(config.width, config.conv) if config.conv else None
        self.mixer = mixer
        self.dropout = nn.Dropout(config.dropout)
        self.mlp = mlp

    def active_parameters(self) -> int:
        conv = self.conv.weight.numel() if self.conv is not None else 0
        return self.mixer.active_parameters() + self.mlp.active_parameters() + conv

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        u = rms_norm(x)
        if self.conv is not None:
            u = self.conv(u)
        y, mixing = self.mixer(u)
        x = x + self.dropout(y)
        y, feeding = self.mlp(rms_norm(x))
        return x + y, add_aux(mixing, feeding)

    def step(
        self, x: Tensor, state: Any, window: Tensor | None
    ) -> tuple[Tensor, Any, Tensor | None]:
        """`state`: the mixer's; `window`: the convolution's last inputs, None without one."""
        u = rms_norm(x)
        if self.conv is not None and window is not None:
            u, window = self.conv.step(u, window)
        y, state = self.mixer.step(u, state)
        x = x + y
        y, _ = self.mlp(rms_norm(x))
        return x + y, state, window


def add_aux(a: Aux, b: Aux) -> Aux:
    """Auxiliary losses of the same name added up."""
    if not a or not b:
        return a or b
    return a | b | {name: a[name] + b[name] for name in a.keys() & b.keys()}


class Skeleton(LanguageModel):
    """A model of `layers` blocks; a subclass says which mixer a layer gets."""

    config: SkeletonConfig

    def __init__(self, config: SkeletonConfig) -> None:
        super().__init__(config)
        self.embedding = Embedding(config.vocab_size, config.width, config.bigrams)
        self.blocks = nn.ModuleList(self.make_block(layer) for layer in range(config.layers))
        weight = self.embedding.token.weight
        if not config.tied:
            weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.head = Head(weight, config.soft_cap)
        self.initialise()

    @abstractmethod
    def make_mixer(self, layer: int) -> Mixer:
        """The token mixer of a layer, 0 .. layers - 1."""

    def make_mlp(self, layer: int) -> FeedForward:
        """The feed-forward half of a layer; a dense MLP unless a model has its own."""
        config = self.config
        return MLP(config.width, round(config.mlp_ratio * config.width), config.dropout)

    def make_block(self, layer: int) -> Block:
        """A layer whole; for a model whose blocks carry more than the residual stream."""
        return Block(self.config, self.make_mixer(layer), self.make_mlp(layer))

    @torch.no_grad()
    def initialise(self) -> None:
        """All initial values: linear layers uniform with std 1/sqrt(fan in), then each part's own,
        which set a branch's last matrix to zero."""
        config = self.config
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                bound = (3.0 / module.in_features) ** 0.5
                module.weight.uniform_(-bound, bound)
        for module in self.blocks.modules():
            if isinstance(module, Mixer | FeedForward):
                module.finish_initialisation()
        # a tied matrix must serve as a head too: logits start small, the norm restores the scale
        nn.init.normal_(self.embedding.token.weight, std=0.02 if config.tied else 1.0)
        if self.embedding.pair is not None:
            nn.init.zeros_(self.embedding.pair.weight)
        if not config.tied:
            nn.init.zeros_(self.head.weight)

    # -- training ---------------------------------------------------------------------------------

    def hidden(self, tokens: Tensor) -> Hidden:
        x = rms_norm(self.embedding(tokens))
        if torch.is_autocast_enabled(x.device.type):
            # the stream itself too: half the memory traffic, and no casts before each product
            x = x.to(torch.get_autocast_dtype(x.device.type))
        total: Aux = {}
        for block in self.blocks:
            if self.grad_checkpoint and torch.is_grad_enabled():
                x, aux = checkpoint(block, x, use_reentrant=False)
            else:
                x, aux = block(x)
            total = add_aux(total, aux)
        return Hidden(rms_norm(x), total)

    # -- decoding ---------------------------------------------------------------------------------

    def init_state(self, batch: int = 1) -> SkeletonState:
        blocks = self._blocks()
        return SkeletonState(
            position=0,
            mixers=tuple(b.mixer.init_state(batch) for b in blocks),
            convs=tuple(b.conv.init_state(batch) for b in blocks if b.conv is not None),
            last=torch.full((batch,), -1, dtype=torch.int64, device=self.device),
        )

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, SkeletonState]:
        assert isinstance(state, SkeletonState)
        x = rms_norm(self.embedding(tokens, state.last))
        mixers: list[MixerState] = []
        convs: list[Tensor] = []
        for layer, block in enumerate(self._blocks()):
            window = state.convs[layer] if state.convs else None
            x, mixer, window = block.step(x, state.mixers[layer], window)
            mixers.append(mixer)
            if window is not None:
                convs.append(window)
        position = state.position + tokens.shape[1]
        return rms_norm(x), SkeletonState(position, tuple(mixers), tuple(convs), tokens[:, -1])

    def state_bytes(self, length: int) -> int:
        size = self.head.weight.element_size()
        conv = (self.config.conv - 1) * self.config.width * size if self.config.conv else 0
        return sum(b.mixer.state_bytes(length) + conv for b in self._blocks()) + 8

    # -- what it is -------------------------------------------------------------------------------

    def describe(self) -> Description:
        """FLOPs: two per weight a token is multiplied by, plus what the mixers do with the past."""
        config, blocks = self.config, self._blocks()
        total = sum(p.numel() for p in self.parameters())
        # a token meets one row of each table; a tied table is met again, whole, by the head
        tables = [self.embedding.token.weight.numel()] + (
            [self.embedding.pair.weight.numel()] if self.embedding.pair is not None else []
        )
        rows = len(tables) * config.width
        head = self.head.weight.numel()
        matrices = sum(b.active_parameters() for b in blocks)
        half = (config.context + 1) / 2  # a training token looks back on half the context
        forward = 2.0 * (matrices + head)
        return Description(
            parameters=total,
            active_parameters=matrices + head + (0 if config.tied else rows),
            train_flops_per_token=3 * (forward + sum(b.mixer.flops(half) for b in blocks)),
            decode_flops_per_token=forward + sum(b.mixer.flops(config.context) for b in blocks),
            state_bytes=self.state_bytes(config.context),
        )

    def _blocks(self) -> list[Block]:
        return [b for b in self.blocks if isinstance(b, Block)]
