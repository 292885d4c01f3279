"""Causal self-attention of the modern recipe.

Legend: B rows, T positions, S positions of a step, C width, H heads, d = C / H.
Unusual: queries and keys are RMS-normalised per head (QK-norm, Henry et al. 2020) and are made in
one stack, so that norm and rotation cost one pass for both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import TimeCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.parts import Aux, Mixer
from holo_cli.layers.rope import Rope
from holo_cli.model_config import SkeletonConfig


class Attention(Mixer):
    """Multi-head causal attention with QK-norm and rotary positions."""

    def __init__(self, config: SkeletonConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.qkv.weight.splits = 3  # type: ignore[attr-defined]  # three matrices for Muon
        self.out = nn.Linear(width, width, bias=False)
        self.rope = Rope(width // config.heads, config.rope_base, config.rope_fraction)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.out.weight)

    def _project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, S, C) at positions start.. -> q, k, v, each (B, H, S, d)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3 * self.heads, -1)
        qk = self.rope(rms_norm(qkv[:, :, : 2 * self.heads]), start).transpose(1, 2)
        v = qkv[:, :, 2 * self.heads :].transpose(1, 2)
        return qk[:, : self.heads], qk[:, self.heads :], v

    def _join(self, y: Tensor) -> Tensor:
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        return self._join(causal_attention(*self._project(x, 0))), {}

    def init_state(self, batch: int) -> TimeCache:
        return TimeCache()

    def step(self, x: Tensor, state: TimeCache) -> tuple[Tensor, TimeCache]:
        q, k, v = self._project(x, state.length)
        state = state.append(k, v)
        k, v = state.views()
        return self._join(causal_attention(q, k, v)), state

    def state_bytes(self, length: int) -> int:
        return 2 * length * self.out.in_features * self.out.weight.element_size()

    def flops(self, length: float) -> float:
        return 4.0 * length * self.out.in_features  # scores and weighted sum, a MAC is two

    def weights(self, x: Tensor) -> Tensor:
        """(B, T, C) -> attention weights (B, H, T, T), for pictures and tests; O(T^2) memory."""
        q, k, _ = self._project(x, 0)
        length = x.shape[1]
        score = q.float() @ k.float().transpose(2, 3) * q.shape[3] ** -0.5
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        return score.masked_fill(~past, float("-inf")).softmax(-1)
