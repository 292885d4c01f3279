"""ngt, the Newton gravity transformer: tokens are masses in a space they move through.

The backbone with gravity as its mixer. What is different from the other models on it: beside the
residual stream x (B, T, C) runs a second one, the coordinates z (B, T, G, H d), which each block's
mixer moves (`mixer.py`) and hands on. Legend of the sizes there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from holo_cli.layers.cache import KVCache
from holo_cli.layers.interfaces import Aux, MixerState, ValueStream, Windows
from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone, BackboneState, Block, add_aux
from holo_cli.models.base import Description, Hidden, State
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.mixer import GravityMixer, InitialCoordinates


class GravityBlock(Block):
    """The backbone's block with coordinates that pass through its mixer."""

    mixer: GravityMixer

    def forward(  # type: ignore[override]
        self, x: Tensor, z: Tensor, stream: ValueStream | None = None
    ) -> tuple[Tensor, Tensor, Aux]:
        y, z, pulling = self.mixer(self.read(x), z, self.extras(stream))
        x, feeding = self.feed(x + self.dropout(y))
        return x, z, add_aux(pulling, feeding)

    def step(  # type: ignore[override]
        self,
        x: Tensor,
        z: Tensor,
        state: KVCache,
        windows: tuple[Tensor, ...],
        stream: ValueStream | None = None,
    ) -> tuple[Tensor, Tensor, KVCache, tuple[Tensor, ...]]:
        """`state`: the mixer's; `windows`: the last inputs of the block's convolutions."""
        seen = Windows(windows)
        y, z, state = self.mixer.step(self.read(x, seen), z, state, self.extras(stream, seen))
        x, _ = self.feed(x + y, seen)
        return x, z, state, tuple(seen.after)


class Model(Backbone):
    """Gravity in the modern backbone."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.initial_coordinates = InitialCoordinates(config)
        self.initial_coordinates.initialise()

    def make_mixer(self, layer: int) -> GravityMixer:
        return GravityMixer(self.config)

    def make_block(self, layer: int) -> GravityBlock:
        return GravityBlock(self.config, self.make_mixer(layer), self.make_mlp(layer))

    # -- training ---------------------------------------------------------------------------------

    def hidden(self, tokens: Tensor) -> Hidden:
        x = self.embed(tokens)
        stream = self.value_stream(tokens, x)
        z = self.initial_coordinates(x)
        total: Aux = {}
        for block in self.blocks:
            if self.grad_checkpoint and torch.is_grad_enabled():
                x, z, aux = checkpoint(block, x, z, stream, use_reentrant=False)
            else:
                x, z, aux = block(x, z, stream)
            total = add_aux(total, aux)
        return Hidden(rms_norm(x), total)

    # -- decoding ---------------------------------------------------------------------------------

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, BackboneState]:
        assert isinstance(state, BackboneState)
        x = rms_norm(self.embedding(tokens, state.last))
        stream = self.value_stream(tokens, x)
        z = self.initial_coordinates(x)
        mixers: list[MixerState] = []
        windows: list[tuple[Tensor, ...]] = []
        for layer, block in enumerate(self.gravity_blocks()):
            cache = state.mixers[layer]
            assert isinstance(cache, KVCache)
            x, z, cache, seen = block.step(x, z, cache, state.windows[layer], stream)
            mixers.append(cache)
            windows.append(seen)
        position = state.position + tokens.shape[1]
        return rms_norm(x), BackboneState(position, tuple(mixers), tuple(windows), tokens[:, -1])

    # -- what it is -------------------------------------------------------------------------------

    def describe(self) -> Description:
        described = super().describe()
        start = sum(p.numel() for p in self.initial_coordinates.parameters())
        return replace(
            described,
            active_parameters=described.active_parameters + start,
            train_flops_per_token=described.train_flops_per_token + 6.0 * start,
            decode_flops_per_token=described.decode_flops_per_token + 2.0 * start,
        )

    def measures(self, tokens: Tensor) -> dict[str, float]:
        from holo_cli.models.ngt.diagnostics import measures

        return measures(self, tokens)

    def views(self) -> tuple[str, ...]:
        from holo_cli.models.ngt.views import PAGES

        return tuple(PAGES)

    def gravity_blocks(self) -> list[GravityBlock]:
        """The blocks, first to last."""
        return [b for b in self.blocks if isinstance(b, GravityBlock)]
