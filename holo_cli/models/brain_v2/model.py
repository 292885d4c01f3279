"""brain-v2: a state space, an episodic memory that learns from one example, attention among
selected tokens, and more steps for harder tokens.

The modern backbone with `mixer.py` in each block: `ssm.py` everywhere, `episodic.py` in every
second layer, `attention.py` in every fourth; and with `ponder` above 1 the MLP of `ponder.py`.
Mathematics: `docs/models/brain-v2.md`. Without attention the decoding state is constant and the
past has no limit; with it a fourth of the layers keep keys and values of a tenth of the tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from holo_cli.layers.interfaces import FeedForward
from holo_cli.models.backbone import Backbone
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.episodic import EpisodicMemory
from holo_cli.models.brain_v2.mixer import BrainMixer
from holo_cli.models.brain_v2.ponder import Ponder
from holo_cli.models.brain_v2.ssm import StateSpace
from holo_cli.models.views import watched


class Model(Backbone):
    """The modern backbone with the mixers and the MLP of this folder."""

    config: Config

    def make_mixer(self, layer: int) -> BrainMixer:
        return BrainMixer(self.config, layer)

    def make_mlp(self, layer: int) -> FeedForward:
        return Ponder(self.config) if self.config.ponder > 1 else super().make_mlp(layer)

    @property
    def context_limit(self) -> int | None:
        """None without attention: states fade, and nothing is ever full."""
        config = self.config
        attention = any(config.has_attention(layer) for layer in range(config.layers))
        return config.context if attention else None

    @property
    def has_memory(self) -> bool:
        return any(isinstance(m, EpisodicMemory) for m in self.modules())

    def measures(self, tokens: Tensor) -> dict[str, float]:
        """Half-lives of states and memories in tokens (geometric means), the share of tokens each
        attention selects, and the steps that tokens ponder; attention and pondering by layer."""
        kinds = (StateSpace, EpisodicMemory, SelectiveAttention, Ponder)
        named = [
            (layer, part)
            for layer, block in enumerate(self.layers(), 1)
            for part in block.modules()
            if isinstance(part, kinds)
        ]
        with watched(part for _, part in named) as calls:
            self.hidden(tokens)
        # a hook fires as a part returns, in the order of `named`: ssm, memory, attention, MLP
        found: dict[str, float] = {}
        states, memories = [], []
        for (layer, part), (u, _) in zip(named, calls, strict=True):
            if isinstance(part, StateSpace):
                states.append(part.rates(u).clamp_min(1e-9).log().mean())
            elif isinstance(part, EpisodicMemory):
                memories.append((-part.gates(u)[0]).clamp_min(1e-9).log().mean())
            elif isinstance(part, SelectiveAttention):
                found[f"selected_{layer}"] = part.selected(u).flat.numel() / tokens.numel()
            else:
                found[f"steps_{layer}"] = part.ponder(u.flatten(0, 1)).steps.float().mean().item()
        for name, rates in (("state_half_life", states), ("memory_half_life", memories)):
            if rates:
                found[name] = math.log(2) / torch.stack(rates).mean().exp().item()
        return found
