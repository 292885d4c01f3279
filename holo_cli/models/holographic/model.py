"""holographic: memories of interfering phases instead of attention, category experts.

Idea: a hologram stores many items in one plate as interference patterns, and light of the right
phases reads one of them back. `memory.py` holds the mechanism, `docs/models/holographic.md` the
mathematics. Without attention anywhere the decoding state is constant and the past has no limit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from holo_cli.layers.interfaces import FeedForward, Mixer
from holo_cli.models.backbone import Backbone, BackboneState
from holo_cli.models.holographic import decoding
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.experts import Experts
from holo_cli.models.holographic.legacy_binding import LegacyBinding
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.mixer import Holographic
from holo_cli.models.vanilla.attention import Attention
from holo_cli.models.views import watched


class Model(Backbone):
    """The modern backbone with holographic mixers and experts."""

    config: Config
    quick_steps = True  # False: every step as `Backbone` makes it

    def make_mixer(self, layer: int) -> Mixer:
        if self.config.is_plain_attention(layer):
            return Attention(self.config)
        return (
            LegacyBinding(self.config)
            if self.config.mixer == "classic"
            else Holographic(self.config)
        )

    def make_mlp(self, layer: int) -> FeedForward:
        return Experts(self.config) if self.config.experts > 1 else super().make_mlp(layer)

    @property
    def context_limit(self) -> int | None:
        """None without attention: what the plates hold fades, and nothing is ever full."""
        config = self.config
        attention = any(config.has_attention(layer) for layer in range(config.layers))
        return config.context if attention else None

    def step_stream(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, BackboneState]:
        if self.quick_steps and decoding.fits(self, tokens):
            return decoding.step_hidden(self, tokens, state)
        return super().step_stream(tokens, state)

    def measures(self, tokens: Tensor) -> dict[str, float]:
        """The memories' half-life in tokens (geometric mean), their share in blends, and the
        largest and smallest share of tokens that any category gets; over all layers."""
        parts = [m for m in self.modules() if isinstance(m, Holographic | Experts)]
        with watched(parts) as calls:
            self.hidden(tokens)
        lives, blends, shares = [], [], []
        for part, (x, _) in zip(parts, calls, strict=True):
            if isinstance(part, Experts):
                chosen = part.route(x.flatten(0, 1))[1].flatten()
                shares.append(torch.bincount(chosen, minlength=part.experts) / chosen.numel())
                continue
            if isinstance(part.memory, Memory):
                rate = -part.memory.gates(x)[0].clamp_max(-1e-9)  # 0: never, in float32
                lives.append((math.log(2) / rate).log().mean())
            if part.blend is not None:
                blends.append(part.blend.gate(x).float().mean())
        found: dict[str, float] = {}
        if lives:
            found["half_life"] = torch.stack(lives).mean().exp().item()
        if blends:
            found["memory_share"] = torch.stack(blends).mean().item()
        if shares:
            found["largest_category"] = torch.stack(shares).max().item()
            found["smallest_category"] = torch.stack(shares).min().item()
        return found
