"""Gated linear attention (Yang et al. 2023, arXiv 2312.06635).

    S_t = Diag(alpha_t) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(K)
    alpha_t = sigmoid(W_2 W_1 u_t + c)^(1 / temperature)          per channel of the keys
    out = W_o [ RMSNorm(o) * silu(W_g u) ]                        norm per head, without a gain

Deviation from the paper: the norm has no gain, as everywhere in the backbone, and the feed-forward
half is the backbone's. Legend: B rows, S positions, C width, H heads, K and V = C / H widths of a
key and a value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.norm import rms_norm
from holo_cli.models.gla.config import Config
from holo_cli.models.recurrent import (
    MatrixState,
    RecurrenceInputs,
    RecurrentMixer,
    full_precision,
    gate_map,
)


class GatedLinearAttention(RecurrentMixer):
    """Keys and queries of `key_ratio` C / H channels, each with a decay from the token."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.key_width)
        width, keys = config.width, config.heads * config.key_width
        self.temperature = config.temperature
        self.qk = nn.Linear(width, 2 * keys, bias=False)
        self.qk.weight.splits = 2  # type: ignore[attr-defined]
        self.vg = nn.Linear(width, 2 * width, bias=False)
        self.vg.weight.splits = 2  # type: ignore[attr-defined]
        self.decay_down = gate_map(width, config.decay_rank)  # W_1
        self.decay_up = gate_map(config.decay_rank, keys)  # W_2
        self.decay_bias = nn.Parameter(torch.empty(keys))  # c
        self.out = nn.Linear(width, width, bias=False)

    def finish_initialisation(self) -> None:
        """Decays start at sigmoid(0)^(1/16) = 0.958 on average: a half-life of 16 tokens."""
        nn.init.zeros_(self.decay_bias)
        nn.init.zeros_(self.out.weight)

    def mix(self, u: Tensor, state: MatrixState | None) -> tuple[Tensor, Tensor]:
        q, k = (self.rotate(self.split(x), state) for x in self.qk(u).chunk(2, dim=-1))
        v, gate = self.vg(u).chunk(2, dim=-1)
        logit = full_precision(self.decay_up(self.decay_down(u))) + full_precision(self.decay_bias)
        log_decay = nn.functional.logsigmoid(logit) / self.temperature
        q = q * self.key_width**-0.5
        o, memory = self.recur(RecurrenceInputs(q, k, self.split(v), self.split(log_decay)), state)
        o = rms_norm(o).transpose(1, 2).flatten(2).to(u.dtype)
        return self.out(o * nn.functional.silu(gate)), memory
