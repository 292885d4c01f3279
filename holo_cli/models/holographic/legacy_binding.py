"""An earlier formula, kept for comparison (`mixer = "classic"`): irfft(conj(Q) K V) within a head.

It mixes no tokens: its output at t depends on token t alone. So it is blended with full attention
by one learned gate per layer, (1 - g) attention + g formula, g = sigmoid(0.1) = 0.525 at first; all
mixing of tokens is the attention's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.interfaces import NOTHING, Aux, Extras
from holo_cli.layers.precision import wide
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.spectra import from_spectrum, spectrum
from holo_cli.models.vanilla.attention import Attention


class LegacyBinding(Attention):
    """Attention, with the formula over the same queries, keys and values mixed in."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head_width = config.head_width
        self.share = nn.Parameter(torch.empty(()))

    def finish_initialisation(self) -> None:
        super().finish_initialisation()
        nn.init.constant_(self.share, 0.1)

    def forward(self, x: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        q, k, v = self._project(x, 0, extras)
        return self._mix(q, k, v, causal_attention(q, k, v)), {}

    def step(self, x: Tensor, state: KVCache, extras: Extras = NOTHING) -> tuple[Tensor, KVCache]:
        q, k, v = self._project(x, state.length, extras)
        state = state.append(k, v)
        keys, values = state.views()
        return self._mix(q, k, v, causal_attention(q, keys, values, seen=state.seen())), state

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, attended: Tensor) -> Tensor:
        g = self.share.sigmoid()
        formula = per_token(q, k, v).to(attended.dtype)
        return self._join((1 - g) * attended + g * formula)


def per_token(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """irfft(conj(F q) F k F v), all (..., e), over the last dimension, float32 at least."""
    fq, fk, fv = (spectrum(x.to(wide(x.dtype))) for x in (q, k, v))
    return from_spectrum(fq.conj_times(fk).times(fv), q.shape[-1])
