"""Pondering: adaptive computation time for the MLP, per token.

    z_0 = u;   z_n = z_{n-1} + MLP(RMSNorm(z_{n-1}))             the same weights at each step
    h_n = sigmoid(w.RMSNorm(z_n) + b)                            probability of halting at step n
    p_n = h_n (1 - h_1) ... (1 - h_{n-1})                        probability that step n is the last
    out = sum_n p_n (z_n - z_0)

(PonderNet, Banino et al. 2021.) Only the feed-forward half repeats, which reads no other token:
repeating the state space for some tokens and not for others would make a later token's past depend
on how long each of them ponders. So every token halts by itself, in training, in a batch and in
decoding alike.

Unlike PonderNet the outputs of the steps are averaged, not sampled, because inside a network the
loss of each output is unknown. A token halts once the remaining probability, 1 - p_1 - .. - p_n, is
at most `ponder_rest`, or at the last step; the remainder is added to its last step, as in Graves
(2016). Halted tokens leave the batch, which saves computation in training too. The loss that keeps
halting near its prior is KL(p || geometric(prior)) over the same steps, with the prior's tail added
to the last one as well. Legend: B rows, T positions, C width, N tokens, A active tokens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import wide
from holo_cli.models.brain_v2.config import Config


class PonderResult(NamedTuple):
    """Output (N, C), divergence of p from its prior (N,), steps taken (N,) int64, and their mean
    by weight, sum n p_n, (N,)."""

    out: Tensor
    divergence: Tensor
    steps: Tensor
    mean: Tensor


class Ponder(FeedForward):
    """An MLP applied up to `ponder` times to each token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.most, self.rest = config.ponder, config.ponder_rest
        self.prior, self.weight = config.ponder_prior, config.ponder_weight
        self.mlp = MLP(config.width, round(config.mlp_ratio * config.width), config.dropout)
        self.halt = nn.Linear(config.width, 1, bias=False)
        self.halt.weight.no_muon = True  # type: ignore[attr-defined]
        self.halt_bias = nn.Parameter(torch.empty(1))

    def finish_initialisation(self) -> None:
        """Halting starts at its prior for every token."""
        nn.init.zeros_(self.halt.weight)
        nn.init.constant_(self.halt_bias, math.log(self.prior / (1 - self.prior)))

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        result = self.ponder(x.flatten(0, 1))
        return result.out.view_as(x), {"ponder": self.weight * result.divergence.mean()}

    def ponder(self, u: Tensor) -> PonderResult:
        """Ponder tokens (N, C)."""
        full = wide(u.dtype)
        out, z = torch.zeros_like(u), u
        left = torch.ones(u.shape[0], dtype=full, device=u.device)  # 1 - p_1 - ..., (A,)
        active = torch.arange(u.shape[0], device=u.device)
        divergence = torch.zeros_like(left)
        mean = torch.zeros_like(left)
        steps = torch.zeros_like(active)
        for n in range(1, self.most + 1):
            z = z + self.mlp(rms_norm(z))[0]
            raw = self.halt(rms_norm(z)).to(full)[:, 0] + self.halt_bias.to(full)
            p = left * raw.sigmoid()
            remain = left - p
            stop = remain <= self.rest if n < self.most else torch.ones_like(remain).bool()
            p = torch.where(stop, left, p)
            out = out.index_add(0, active, (z - u[active]) * p[:, None].to(z.dtype))
            log_prior = torch.where(
                stop,
                (n - 1) * math.log1p(-self.prior),
                math.log(self.prior) + (n - 1) * math.log1p(-self.prior),
            ).to(full)
            least = torch.finfo(full).tiny
            divergence = divergence.index_add(0, active, p * (p.clamp_min(least).log() - log_prior))
            mean = mean.index_add(0, active, n * p)
            if torch.compiler.is_compiling():
                # shapes may not depend on the data: a halted token stays, with nothing left to give
                steps = torch.where(left > 0, n, steps)
                left = remain.masked_fill(stop, 0.0)
                continue
            steps[active] = n
            on = (~stop).nonzero()[:, 0]
            if on.numel() == 0:
                break
            if on.numel() < active.numel():
                z, active, remain = z[on], active[on], remain[on]
            left = remain
        return PonderResult(out, divergence, steps, mean)

    def flops(self) -> float:
        """Of the steps after the first."""
        return 2.0 * (self.expected_steps() - 1) * self.active_parameters()

    def expected_steps(self) -> float:
        """Steps taken if halting is at its prior."""
        if self.rest == 0:
            return float(self.most)
        return float(
            min(self.most, max(1, math.ceil(math.log(self.rest) / math.log1p(-self.prior))))
        )
