"""Pondering: a token goes through its MLP again and again until it has had enough.

    z_0 = u;   z_n = z_{n-1} + MLP(RMSNorm(z_{n-1}))              the same weights at each step
    h_n = sigmoid(w.RMSNorm(z_n) + b)                             the chance to stop after step n
    p_n = h_n (1 - h_1) ... (1 - h_{n-1})                         and that step n is the last
    out = sum_n p_n (z_n - z_0)

(PonderNet, Banino et al. 2021.) What repeats is the part of a block that looks at no other token:
a state space has one state per position, and stepping it several times for some tokens and once
for others would give later tokens a past that depends on how long each of them thinks. So every
token may stop by itself, in training, in a batch and in decoding alike, and nothing of it is seen
by earlier tokens.

Unlike PonderNet the answers are mixed, not sampled: inside a network the loss of each answer is not
known. A token stops for good once what is left, 1 - p_1 - .. - p_n, is at most `ponder_rest`, or
after the last step; what is left goes to its last step, as in Graves (2016). Tokens that stopped
leave the batch, so thinking less really computes less, in training too. The loss that keeps
halting near its prior is KL(p || geometric(prior)) over those same steps, the prior's tail going
to the last one as well. Legend: B rows, T positions, C width, A tokens still thinking.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import rms_norm
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.ssm import wide


class Thought(NamedTuple):
    """What came of pondering: what to add, (N, C), how far p is from its prior, (N,), the steps
    taken, (N,) int64, and the steps by weight, sum n p_n, (N,)."""

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
        thought = self.think(x.flatten(0, 1))
        return thought.out.view_as(x), {"ponder": self.weight * thought.divergence.mean()}

    def think(self, u: Tensor) -> Thought:
        """(N, C) -> what each token thinks of itself."""
        full = wide(u.dtype)
        out, z = torch.zeros_like(u), u
        left = torch.ones(u.shape[0], dtype=full, device=u.device)  # 1 - p_1 - ... of the awake
        awake = torch.arange(u.shape[0], device=u.device)  # their places
        divergence = torch.zeros_like(left)
        mean = torch.zeros_like(left)
        steps = torch.zeros_like(awake)
        for n in range(1, self.most + 1):
            z = z + self.mlp(rms_norm(z))[0]
            raw = self.halt(rms_norm(z)).to(full)[:, 0] + self.halt_bias.to(full)
            p = left * raw.sigmoid()
            remain = left - p
            stop = remain <= self.rest if n < self.most else torch.ones_like(remain).bool()
            p = torch.where(stop, left, p)
            out = out.index_add(0, awake, (z - u[awake]) * p[:, None].to(z.dtype))
            log_prior = torch.where(
                stop,
                (n - 1) * math.log1p(-self.prior),
                math.log(self.prior) + (n - 1) * math.log1p(-self.prior),
            ).to(full)
            least = torch.finfo(full).tiny
            divergence = divergence.index_add(0, awake, p * (p.clamp_min(least).log() - log_prior))
            mean = mean.index_add(0, awake, n * p)
            steps[awake] = n
            on = (~stop).nonzero()[:, 0]
            if on.numel() == 0:
                break
            if on.numel() < awake.numel():
                z, awake, remain = z[on], awake[on], remain[on]
            left = remain
        return Thought(out, divergence, steps, mean)

    def flops(self) -> float:
        """Of the steps after the first."""
        return 2.0 * (self.expected_steps() - 1) * self.active_parameters()

    def expected_steps(self) -> float:
        """Steps taken at the prior: up to where what is left is small enough."""
        if self.rest == 0:
            return float(self.most)
        return float(
            min(self.most, max(1, math.ceil(math.log(self.rest) / math.log1p(-self.prior))))
        )
