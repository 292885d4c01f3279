"""Causal self-attention, the mixer of the modern recipe.

    q, k, v = W_q x, W_k x, W_v x                     per head
    q = g rope(rms_norm(q));  k = rope(rms_norm(k))
    y = W_o softmax(q k^T / sqrt(d)) v                over the past

g is a learned gain per head (`layers/gain.py`). Queries and keys are stacked, so that norm and
rotation cost one pass for both. Models whose mixer is this attention with a change (a window,
dendrites, a formula beside it) derive from this class, so that there is one definition.

Legend: B rows, T positions, S positions of a step, C width, H heads, d = C / H.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.conv import CANON_TAPS, ShortConv
from holo_cli.layers.gain import QueryGain
from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer, convolve
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import Positions
from holo_cli.layers.precision import wide
from holo_cli.layers.rope import Rope

MIN_MASS = 1e-4  # lower bound on masses, as in ngt


class Attention(Mixer):
    """Multi-head causal attention with QK-norm, rotary positions and a learned query gain."""

    takes_extras: ClassVar[bool] = True

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.qkv.weight.splits = 3  # type: ignore[attr-defined]  # three matrices for Muon
        self.qkv.weight.heads = config.heads  # type: ignore[attr-defined]
        self.canon = ShortConv(3 * width, CANON_TAPS, linear=True) if "B" in config.canon else None
        self.gain = QueryGain(config.heads) if config.query_gain else None
        # gravity's masses for attention, so that the two differ in their weights alone
        self.mass: nn.Linear | None = None
        if getattr(config, "value_mass", False):
            self.mass = nn.Linear(width, config.heads, bias=False)
            self.mass.weight.no_muon = True  # type: ignore[attr-defined]
        self.out = nn.Linear(width, width, bias=False)
        self.rope = Rope(width // config.heads, config.rope_base, config.rope_fraction)

    def finish_initialisation(self) -> None:
        super().finish_initialisation()
        if self.mass is not None:
            nn.init.zeros_(self.mass.weight)  # equal masses

    def convolutions(self) -> list[ShortConv]:
        return [] if self.canon is None else [self.canon]

    def _project(
        self, x: Tensor, start: Positions, extras: Extras = NOTHING
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, S, C) at positions start.. -> q, k, v, each (B, H, S, d)."""
        batch, length, _ = x.shape
        qkv = convolve(self.canon, self.qkv(x), extras.windows)
        qkv = qkv.view(batch, length, 3 * self.heads, -1)
        # the gradient of a split is one copy, that of slices a tensor of zeros for each
        qk, v = qkv.split((2 * self.heads, self.heads), dim=2)
        q, k = self.rope(rms_norm(qk), start).transpose(1, 2).chunk(2, dim=1)
        v = extras.values(v)
        if self.mass is not None:
            mass = nn.functional.softplus(self.mass(x).to(wide(x.dtype))) + MIN_MASS
            v = v * mass.unsqueeze(-1).to(v.dtype)
        v = v.transpose(1, 2)
        return q if self.gain is None else self.gain(q), k, v

    def _join(self, y: Tensor) -> Tensor:
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        return self._join(causal_attention(*self._project(x, 0, extras))), {}

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int) -> KVCache:
        return KVCache()

    def step(self, x: Tensor, state: KVCache, extras: Extras = NOTHING) -> tuple[Tensor, KVCache]:
        q, k, v = self._project(x, state.length, extras)
        state = state.append(k, v)
        k, v = state.views()
        return self._join(causal_attention(q, k, v, seen=state.seen())), state

    def state_bytes(self, length: int) -> int:
        return 2 * length * self.out.in_features * self.out.weight.element_size()

    def flops(self, length: float) -> float:
        return 4.0 * length * self.out.in_features  # scores and weighted sum, a multiply-add is two

    def weights(self, x: Tensor) -> Tensor:
        """(B, T, C) -> attention weights (B, H, T, T), for pictures and tests; O(T^2) memory."""
        q, k, _ = self._project(x, 0)
        length = x.shape[1]
        score = q.float() @ k.float().transpose(2, 3) * q.shape[3] ** -0.5
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        return score.masked_fill(~past, float("-inf")).softmax(-1)
