"""The time mixing of RWKV-7 (Peng et al. 2025, arXiv 2503.14456).

    S_t = Diag(w_t) S_{t-1} - (a_t * h_t) h_t^T S_{t-1} + k~_t v_t^T        S (K, V), keys first
    o_t = S_t^T r_t
    out = W_o [ (GroupNorm(o) + (sum_c r_c p_c k~_c) v) * g ]               per head

    x_i = u_t + m_i * (u_{t-1} - u_t)            token shift, m_i per channel, i = r, w, k, v, a, g
    r, k, v = W_r x_r, W_k x_k, W_v x_v
    w = exp(-exp(-1/2) sigmoid(w_0 + W_2 tanh(W_1 x_w)))        decay, between exp(-0.607) and 1
    a = sigmoid(a_0 + A_2 A_1 x_a)                              learning rate in context
    g = G_2 sigmoid(G_1 x_g)                                    output gate
    h = (k * e) / |k * e|,   k~ = k * (1 + (a - 1) * f)         what is erased, what is written

Deviations from the paper: no value residual (the stream of the backbone carries nothing but x from
block to block); with the backbone's short convolution on, no token shift (x_i = u). The
feed-forward half is the backbone's, so that a comparison varies the mixer only. The recurrence lets
its row `b` read the decayed state; h / w gives the same, and w is never below 0.54. Legend: B rows,
S positions, C width, H heads, d = C / H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from holo_cli.models.recurrent import (
    MatrixState,
    RecurrenceInputs,
    RecurrentMixer,
    full_precision,
    gate_map,
)
from holo_cli.models.rwkv7.config import Config

SLOWEST = math.exp(-0.5)  # -log w is never above it
NORM_EPS = 1e-5  # of the norm per head, times the head's width
# How far each projection's token shift leans to the predecessor at the start: channel n of C takes
# 1 - (n / C)^(power times the share of the layers that are still above)
SHIFT_POWERS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}


class TimeMix(RecurrentMixer):
    """One layer's time mixing; `layer` (0 .. layers - 1) sets initial values only."""

    low_rank = 2

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, config.width // config.heads)
        self.layer, self.layers = layer, config.layers
        self.shifted = config.token_shift
        width, rank = config.width, config.gate_rank
        self.shift = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(width)) for name in SHIFT_POWERS}
            if self.shifted
            else {}
        )
        self.receptance = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.decay_down, self.decay_up = gate_map(width, rank), gate_map(rank, width)
        self.decay_bias = nn.Parameter(torch.empty(width))  # w_0
        self.rate_down, self.rate_up = gate_map(width, rank), gate_map(rank, width)
        self.rate_bias = nn.Parameter(torch.empty(width))  # a_0
        self.gate_down = nn.Linear(width, 2 * rank, bias=False)
        self.gate_up = nn.Linear(2 * rank, width, bias=False)
        self.erase = nn.Parameter(torch.empty(width))  # e
        self.replace = nn.Parameter(torch.empty(width))  # f
        self.bonus = nn.Parameter(torch.empty(width))  # p
        self.norm_gain = nn.Parameter(torch.empty(width))
        self.norm_bias = nn.Parameter(torch.empty(width))
        self.out = nn.Linear(width, width, bias=False)

    @torch.no_grad()
    def finish_initialisation(self) -> None:
        """Initial values as in the paper's public code: slow and fast channels in each layer, more
        slow ones in later layers, and gates that do not depend on the token yet."""
        width = self.out.weight.shape[0]
        channel = torch.arange(width, dtype=torch.float32)
        along = channel / max(width - 1, 1)  # 0 .. 1 over the channels
        inside = torch.linspace(-1, 1, self.key_width).repeat(self.heads)
        inside = inside * inside.abs()
        depth = self.layer / max(self.layers - 1, 1)
        left = 1 - self.layer / self.layers
        for name, parameter in self.shift.items():
            parameter.copy_(1 - (channel / width) ** (SHIFT_POWERS[name] * left))
        self.decay_bias.copy_(-5.5 + 6 * along ** (1 + depth**0.3) + 2.5 * inside)
        self.rate_bias.copy_(-0.19 + 0.3 * inside + 0.4 * (along - 0.5))
        nn.init.zeros_(self.decay_up.weight)
        nn.init.zeros_(self.rate_up.weight)
        self.erase.copy_(0.71 - 0.1 * (along - 0.5))
        nn.init.constant_(self.replace, 1.02)
        nn.init.constant_(self.bonus, -0.04)
        nn.init.constant_(self.norm_gain, ((1 + self.layer) / self.layers) ** 0.7)
        nn.init.zeros_(self.norm_bias)
        nn.init.zeros_(self.out.weight)

    def mix(self, u: Tensor, state: MatrixState | None) -> tuple[Tensor, Tensor]:
        x = self._shift(u, state)
        r, k, v = self.receptance(x["r"]), self.key(x["k"]), self.value(x["v"])
        decay = full_precision(self.decay_up(self.decay_down(x["w"]).tanh()))
        log_w = -SLOWEST * (decay + full_precision(self.decay_bias)).sigmoid()
        rate = full_precision(self.rate_up(self.rate_down(x["a"])))
        a = (rate + full_precision(self.rate_bias)).sigmoid()
        gate = self.gate_up(self.gate_down(x["g"]).sigmoid())

        k = full_precision(k)
        erased = nn.functional.normalize(self.split(k * self.erase), dim=-1)  # h
        written = self.split(k * (1 + (a - 1) * self.replace))  # k~
        erased, written = self.rotate(erased, state), self.rotate(written, state)
        r = self.rotate(self.split(r), state)
        v, log_w, a = self.split(v), self.split(log_w), self.split(a)
        inputs = RecurrenceInputs(r, written, v, log_w, erased * (-log_w).exp(), -a * erased)
        o, memory = self.recur(inputs, state)
        o = nn.functional.layer_norm(o, (self.value_width,), eps=NORM_EPS * self.value_width)
        o = torch.addcmul(self._per_head(self.norm_bias), o, self._per_head(self.norm_gain))
        now = (r * self._per_head(self.bonus) * written).sum(-1, keepdim=True)
        o = torch.addcmul(o, now, v).transpose(1, 2).flatten(2).to(u.dtype)
        return self.out(o * gate), memory

    def _shift(self, u: Tensor, state: MatrixState | None) -> dict[str, Tensor]:
        """What each projection reads: u (B, S, C) mixed with its predecessors."""
        if not self.shifted:
            return dict.fromkeys(SHIFT_POWERS, u)
        first = torch.zeros_like(u[:, :1])
        if state is not None and state.last is not None:
            first = state.last.to(u.dtype)
        back = torch.cat((first, u[:, :-1]), dim=1) - u
        return {name: torch.addcmul(u, back, m.to(u.dtype)) for name, m in self.shift.items()}

    def _per_head(self, parameter: Tensor) -> Tensor:
        """(C,) -> (H, 1, d)."""
        return full_precision(parameter).view(self.heads, 1, -1)
