"""The modern transformer backbone: everything of a model except its mixer.

All models but vanilla's recipes classic and llama are this backbone with their own mixer in each
block, so that a comparison varies the mechanism and nothing else:

    x = norm(embedding(tokens))                        # (B, T, C), no positions added
    x = x + mixer(norm(x));  x = x + mlp(norm(x))      # `layers` times
    logits = soft_cap(norm(x) W^T)

Options of the config, where a model's parts allow them: Canon convolutions, the first layer's
values or value embeddings added to a layer's values, and a suffix memory before the head. Unlike
most transformers, norms have no gains (a matrix always follows that can learn them), output
projections start at zero so that every block starts as the identity, and nothing has a bias.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.errors import UsageError
from holo_cli.layers.conv import CANON_TAPS, ShortConv
from holo_cli.layers.embedding import Embedding
from holo_cli.layers.head import Head
from holo_cli.layers.interfaces import (
    Aux,
    ConvWindows,
    Extras,
    FeedForward,
    Mixer,
    ValueStream,
    convolve,
)
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.suffix import (
    STATE_BYTES,
    Matches,
    SuffixMemory,
    SuffixState,
    longest_matches,
)
from holo_cli.models.base import Description, Hidden, LanguageModel, State


@dataclass(frozen=True)
class BackboneState(State):
    """Position, each block's mixer state and convolution inputs, and the last token."""

    mixers: tuple[Any, ...]
    windows: tuple[tuple[Tensor, ...], ...]  # of each block's convolutions, each (B, K - 1, C)
    last: Tensor  # (B,) int64, -1 before the first token
    suffix: SuffixState | None  # of the suffix memory, where the model has one


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)), with convolutions where the config has them."""

    def __init__(self, config: BackboneConfig, mixer: Mixer, mlp: FeedForward) -> None:
        super().__init__()
        width = config.width
        self.conv = ShortConv(width, config.conv) if config.conv else None
        self.canon_a = ShortConv(width, CANON_TAPS, linear=True) if "A" in config.canon else None
        self.mixer = mixer
        self.canon_c = ShortConv(width, CANON_TAPS, linear=True) if "C" in config.canon else None
        self.dropout = nn.Dropout(config.dropout)
        self.mlp = mlp
        self.residual_gain: nn.Parameter | None = None
        self.embedding_gain: nn.Parameter | None = None

    def add_value_gains(self, *, residual: bool, embedding: bool) -> None:
        """Learned factors of what is added to the mixer's values, 1 at first."""
        self.residual_gain = nn.Parameter(torch.ones(1)) if residual else None
        self.embedding_gain = nn.Parameter(torch.ones(1)) if embedding else None

    def active_parameters(self) -> int:
        own = [m.weight for m in (self.conv, self.canon_a, self.canon_c) if m is not None]
        gains = [g for g in (self.residual_gain, self.embedding_gain) if g is not None]
        small = sum(p.numel() for p in [*own, *gains])
        return self.mixer.active_parameters() + self.mlp.active_parameters() + small

    def convolutions(self) -> list[ShortConv]:
        """All that keep windows in the block's decoding state, in the order of their use."""
        inner = self.mlp.canon if isinstance(self.mlp, MLP) else None
        found = [self.conv, self.canon_a, *self.mixer.convolutions(), self.canon_c, inner]
        return [conv for conv in found if conv is not None]

    def forward(
        self, x: Tensor, stream: ValueStream | None = None, side: Any = None
    ) -> tuple[Tensor, Any, Aux]:
        """The residual stream (B, T, C) and the side stream -> both after the block, and losses."""
        extras = Extras(None, stream, self.residual_gain, self.embedding_gain, side)
        u = self.read(x)
        y, mixing = self.mixer(u, extras) if self.mixer.takes_extras else self.mixer(u)
        x, feeding = self.feed(x + self.dropout(y))
        return x, extras.side, add_aux(mixing, feeding)

    def step(
        self,
        x: Tensor,
        state: Any,
        windows: tuple[Tensor, ...],
        stream: ValueStream | None = None,
        side: Any = None,
    ) -> tuple[Tensor, Any, Any, tuple[Tensor, ...]]:
        """As `forward` for the positions after `state`, the mixer's, and `windows`, the last inputs
        of the block's convolutions -> both streams, and both of these after the step."""
        seen = ConvWindows(windows)
        extras = Extras(seen, stream, self.residual_gain, self.embedding_gain, side)
        u = self.read(x, seen)
        y, state = self.mixer.step(u, state, *((extras,) if self.mixer.takes_extras else ()))
        x, _ = self.feed(x + y, seen)
        return x, extras.side, state, tuple(seen.after)

    def read(self, x: Tensor, windows: ConvWindows | None = None) -> Tensor:
        """The mixer's input: the normalized stream through the block's convolutions."""
        u = convolve(self.conv, rms_norm(x), windows)
        return convolve(self.canon_a, u, windows)

    def feed(self, x: Tensor, windows: ConvWindows | None = None) -> tuple[Tensor, Aux]:
        """The second half of the block: x + mlp(norm(x))."""
        u = convolve(self.canon_c, rms_norm(x), windows)
        y, aux = self.mlp(u, windows) if isinstance(self.mlp, MLP) else self.mlp(u)
        return x + y, aux


def add_aux(a: Aux, b: Aux) -> Aux:
    """Auxiliary losses of the same name added up."""
    if not a or not b:
        return a or b
    return a | b | {name: a[name] + b[name] for name in a.keys() & b.keys()}


class Backbone(LanguageModel):
    """A model of `layers` blocks; a subclass says which mixer a layer gets."""

    config: BackboneConfig

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.embedding = Embedding(config.vocab_size, config.width, config.bigrams)
        self.blocks = nn.ModuleList(self.make_block(layer) for layer in range(config.layers))
        self.values = None
        if config.value_embedding:
            self.values = nn.Embedding(config.vocab_size, config.width)
        for layer, block in enumerate(self.layers()):
            residual = config.value_residual and layer > 0
            block.add_value_gains(residual=residual, embedding=config.value_embedding)
            if "D" in config.canon and not isinstance(block.mlp, MLP):
                raise UsageError(
                    f"model.canon ({config.canon}): place D is inside a dense MLP, and layer "
                    f"{layer + 1} has none.",
                    next_step="Leave out D.",
                )
        weight = self.embedding.token.weight
        if not config.tied:
            weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.head = Head(weight, config.soft_cap)
        self.suffix = SuffixMemory(config.width) if config.suffix else None
        self.initialise()

    @abstractmethod
    def make_mixer(self, layer: int) -> Mixer:
        """The token mixer of a layer, 0 .. layers - 1."""

    def make_mlp(self, layer: int) -> FeedForward:
        """The feed-forward half of a layer; a dense MLP unless a model has its own."""
        config = self.config
        hidden = round(config.mlp_ratio * config.width)
        return MLP(config.width, hidden, config.dropout, canon="D" in config.canon)

    def make_block(self, layer: int) -> Block:
        """A layer whole; for a model whose blocks have more than two halves."""
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
        if self.values is not None:
            nn.init.zeros_(self.values.weight)
        if not config.tied:
            nn.init.zeros_(self.head.weight)
        if self.suffix is not None:
            self.suffix.initialise()

    # -- training ---------------------------------------------------------------------------------

    def embed(self, tokens: Tensor, previous: Tensor | None = None) -> Tensor:
        """The stream at its start, (B, S, C); `previous` as in `Embedding`."""
        x = rms_norm(self.embedding(tokens, previous))
        if torch.is_autocast_enabled(x.device.type):
            # the stream itself too: half the memory traffic, and no casts before each product
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return x

    def value_stream(self, tokens: Tensor, like: Tensor) -> ValueStream | None:
        """What is added to the layers' values for these tokens, in the dtype of `like`."""
        residual = self.config.value_residual
        if self.values is None:
            return ValueStream(residual, None) if residual else None
        return ValueStream(residual, self.values(tokens).to(like.dtype))

    def side_stream(self, tokens: Tensor, x: Tensor, state: BackboneState | None) -> Any:
        """What runs beside the residual stream from block to block; default None, nothing.

        tokens (B, S), x (B, S, C) embedded; `state` while decoding. Its mixers find it as
        `extras.side` and may replace it there.
        """
        return None

    def layer_losses(self, layer: int, x: Tensor, tokens: Tensor, side: Any) -> Aux:
        """Auxiliary losses of the stream x (B, T, C) after a layer, in training; default none."""
        return {}

    def hidden(self, tokens: Tensor) -> Hidden:
        x, losses = self.stream(tokens)
        return Hidden(self.remembered(x, tokens, None)[0], losses)

    def remembered(
        self, x: Tensor, tokens: Tensor, before: SuffixState | None
    ) -> tuple[Tensor, SuffixState | None]:
        """Final hidden states (B, S, C) of tokens (B, S) with what the suffix memory proposes, and
        its state after them; as they are without one."""
        if self.suffix is None:
            return x, None
        matches = self.matches(tokens, before)
        return self.suffix(x, matches, self.head.rows(matches.proposed)), matches.state

    def matches(self, tokens: Tensor, before: SuffixState | None) -> Matches:
        """What a suffix memory finds at tokens (B, S), after what came before them."""
        return longest_matches(tokens, before, self.config.end_token)

    def stream(self, tokens: Tensor) -> Hidden:
        """The normalized stream after the last block, and auxiliary losses."""
        x = self.embed(tokens)
        stream = self.value_stream(tokens, x)
        side = self.side_stream(tokens, x, None)
        total: Aux = {}
        for layer, block in enumerate(self.blocks):
            if self.grad_checkpoint and torch.is_grad_enabled():
                x, side, aux = checkpoint(block, x, stream, side, use_reentrant=False)
            else:
                x, side, aux = block(x, stream, side)
            total = add_aux(total, aux)
            total = add_aux(total, self.layer_losses(layer, x, tokens, side))
        return Hidden(rms_norm(x), total)

    # -- decoding ---------------------------------------------------------------------------------

    @property
    def mixed_lengths(self) -> bool:
        return all(block.mixer.mixed_lengths for block in self.layers())

    def step_obstacle(self) -> str | None:
        found = (block.mixer.step_obstacle() for block in self.layers())
        return next((reason for reason in found if reason), None)

    def init_state(self, batch: int = 1) -> BackboneState:
        blocks = self.layers()
        return BackboneState(
            position=0,
            mixers=tuple(b.mixer.init_state(batch) for b in blocks),
            windows=tuple(tuple(c.init_state(batch) for c in b.convolutions()) for b in blocks),
            last=torch.full((batch,), -1, dtype=torch.int64, device=self.device),
            suffix=SuffixState.start(batch, self.device) if self.suffix is not None else None,
        )

    @property
    def can_recall(self) -> bool:
        return self.suffix is not None

    def recalling(
        self, state: State, texts: Sequence[Sequence[int]], past: Sequence[Sequence[int]]
    ) -> BackboneState:
        assert isinstance(state, BackboneState)
        assert state.suffix is not None
        return replace(state, suffix=state.suffix.recalling(texts, past))

    def recalled_positions(self, state: State) -> int:
        assert isinstance(state, BackboneState)
        return 0 if state.suffix is None else state.suffix.recalled

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, BackboneState]:
        assert isinstance(state, BackboneState)
        x, after = self.step_stream(tokens, state)
        x, suffix = self.remembered(x, tokens, state.suffix)
        return x, replace(after, suffix=suffix)

    def step_stream(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, BackboneState]:
        """As `stream` for the tokens after `state`; the state after them, but for the suffix."""
        x = rms_norm(self.embedding(tokens, state.last))
        stream = self.value_stream(tokens, x)
        side = self.side_stream(tokens, x, state)
        mixers, windows = list(state.mixers), list(state.windows)
        for n, block in enumerate(self.layers()):
            x, side, mixers[n], windows[n] = block.step(x, mixers[n], windows[n], stream, side)
        return rms_norm(x), self.advanced(state, tokens, mixers, windows)

    def advanced(
        self,
        state: BackboneState,
        tokens: Tensor,
        mixers: Sequence[Any],
        windows: Sequence[tuple[Tensor, ...]],
    ) -> BackboneState:
        """The state after these tokens, from what its blocks hold."""
        return replace(
            state,
            position=state.position + tokens.shape[1],
            mixers=tuple(mixers),
            windows=tuple(windows),
            last=tokens[:, -1],
        )

    def state_bytes(self, length: int) -> int:
        size = self.head.weight.element_size()
        convs = [c.weight for b in self.layers() for c in b.convolutions()]
        windows = sum((w.shape[0] - 1) * w.shape[1] * size for w in convs)
        suffix = STATE_BYTES * length if self.suffix is not None else 0
        return sum(b.mixer.state_bytes(length) for b in self.layers()) + windows + 8 + suffix

    # -- what it is -------------------------------------------------------------------------------

    def describe(self) -> Description:
        """FLOPs: two per weight a token is multiplied by, plus what the mixers do with the past."""
        config, blocks = self.config, self.layers()
        total = sum(p.numel() for p in self.parameters())
        # a token meets one row of each table; a tied table is met again, whole, by the head
        every = (self.embedding.token, self.embedding.pair, self.values)
        tables = [table for table in every if table is not None]
        rows = len(tables) * config.width
        head = self.head.weight.numel()
        inside = [*tables, self.blocks, self.head]
        counted = {id(p) for module in inside for p in module.parameters()}
        beside = sum(p.numel() for p in self.parameters() if id(p) not in counted)
        matrices = sum(b.active_parameters() for b in blocks) + beside
        half = (config.context + 1) / 2  # a training token looks back on half the context
        forward = 2.0 * (matrices + head) + sum(b.mlp.flops() for b in blocks)
        decoding = sum(b.mixer.decode_flops(config.context) for b in blocks)
        return Description(
            parameters=total,
            active_parameters=matrices + head + (0 if config.tied else rows),
            train_flops_per_token=3 * (forward + sum(b.mixer.flops(half) for b in blocks)),
            decode_flops_per_token=forward + decoding,
            state_bytes=self.state_bytes(config.context),
        )

    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return [b for b in self.blocks if isinstance(b, Block)]
