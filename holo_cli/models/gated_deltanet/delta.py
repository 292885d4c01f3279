"""Gated DeltaNet (Yang, Kautz, Hatamizadeh 2024, arXiv 2412.06464), and with `gates = "gdn2"` the
gates of Gated DeltaNet-2 (arXiv 2605.22791).

    gdn:   S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T
    gdn2:  S_t = (I - k_t (b_t * k_t)^T) Diag(alpha_t) S_{t-1} + k_t (w_t * v_t)^T
    o_t = S_t^T q_t,    out = W_o [ RMSNorm(o) * silu(W_g u) ]       norm per head, without a gain

    q, k = silu(W u) / |silu(W u)| per head,   v = silu(W_v u)
    alpha = exp(-exp(r_h) softplus(W_a u + c)),   beta = sigmoid(W_b u)
    b = sigmoid(W_b u),   w = sigmoid(W_w u)                         gdn2, one number per channel

Before a new value is written at a key, the value that the key retrieves is erased, so that a second
value replaces the first. Deviation from the papers: one short convolution before the projections
(the backbone's `conv`) instead of one after each of q, k and v; the norm has no gain; the output
gate of gdn2 is that of gdn (a full matrix and a silu), so that the two differ by the recurrence's
gates only. Legend: B rows, S positions, C width, H heads, d = C / H.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from holo_cli.layers.norm import rms_norm
from holo_cli.models.gated_deltanet.config import Config
from holo_cli.models.recurrent import (
    MatrixState,
    RecurrenceInputs,
    RecurrentMixer,
    full_precision,
    gate_map,
)

RATE_MIN, RATE_MAX = 1.0, 16.0  # exp(r) at the start, evenly spaced over the heads
STEP_MIN, STEP_MAX = 0.001, 0.1  # softplus(c) at the start, evenly spaced in its logarithm


class GatedDelta(RecurrentMixer):
    """What both sets of gates share."""

    low_rank = 1

    def __init__(self, config: Config, decays: int) -> None:
        """`decays`: decays of a layer, H or C."""
        super().__init__(config, config.width // config.heads)
        width = config.width
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.qkv.weight.splits = 3  # type: ignore[attr-defined]
        self.gate = nn.Linear(width, width, bias=False)
        self.rate = nn.Parameter(torch.empty(config.heads))  # r
        self.decay_bias = nn.Parameter(torch.empty(decays))  # c
        self.out = nn.Linear(width, width, bias=False)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.rate.copy_(_spaced(RATE_MIN, RATE_MAX, self.heads).log())
            per_head = self.decay_bias.numel() // self.heads
            low, high = math.log(STEP_MIN), math.log(STEP_MAX)
            count = per_head if per_head > 1 else self.heads
            step = _spaced(low, high, count).exp()
            bias = step.expm1().log()  # softplus(bias) = step
            self.decay_bias.copy_(bias.repeat(self.heads) if per_head > 1 else bias)

    def log_decay(self, logit: Tensor) -> Tensor:
        """(B, S, H) or (B, S, C) -> log alpha, (B, H, S, 1) or (B, H, S, d)."""
        step = nn.functional.softplus(full_precision(logit) + full_precision(self.decay_bias))
        return -full_precision(self.rate).exp()[:, None, None] * self.split(step)

    @abstractmethod
    def gates(self, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k and v (B, H, S, d) -> log alpha, the row that reads what is erased, what is written."""

    def mix(self, u: Tensor, state: MatrixState | None) -> tuple[Tensor, Tensor]:
        q, k, v = (self.split(x) for x in nn.functional.silu(self.qkv(u)).chunk(3, dim=-1))
        q, k = (self.rotate(nn.functional.normalize(x, dim=-1), state) for x in (q, k))
        log_decay, erase, write = self.gates(u, k, v)
        o, memory = self.recur(RecurrenceInputs(q, k, write, log_decay, erase), state)
        o = rms_norm(o).transpose(1, 2).flatten(2).to(u.dtype)
        return self.out(o * nn.functional.silu(self.gate(u))), memory


class HeadGates(GatedDelta):
    """gdn: alpha and beta are one number per head."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.heads)
        self.decay_write = gate_map(config.width, 2 * config.heads)  # W_a, W_b

    def gates(self, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, write = self.decay_write(u).chunk(2, dim=-1)
        beta = self.split(write).sigmoid()  # (B, H, S, 1)
        return self.log_decay(decay), beta * k, beta * v


class ChannelGates(GatedDelta):
    """gdn2: decay, erase gate and write gate are one number per channel; the decay's map has the
    rank of a head's width."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.width)
        width = config.width
        self.decay_down = gate_map(width, width // config.heads)
        self.decay_up = gate_map(width // config.heads, width)
        self.erase_write = gate_map(width, 2 * width)  # W_b, W_w
        self.erase_write.weight.splits = 2  # type: ignore[attr-defined]

    def gates(self, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        erase, write = (self.split(x).sigmoid() for x in self.erase_write(u).chunk(2, dim=-1))
        return self.log_decay(self.decay_up(self.decay_down(u))), erase * k, write * v


def _spaced(low: float, high: float, count: int) -> Tensor:
    """`count` numbers from `low` to `high`, evenly; the middle for one."""
    return torch.linspace(low, high, count) if count > 1 else torch.tensor([(low + high) / 2])
