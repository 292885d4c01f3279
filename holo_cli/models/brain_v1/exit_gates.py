"""A trained confidence: for each exit a small map that predicts what leaving there would cost.

What a token loses by leaving after a layer is, by the model's own lights, the divergence of the
layer's prediction p_l from the last one, p_L. A gate predicts its mean from the layer's stream x:

    KL(p_L || p_l) ~ mu_l(x) = exp(u_l . relu(D_l norm(x)) + b_l)
    loss = log mu + (KL + FLOOR) / mu                 least where mu is the mean of KL + FLOOR
    confidence = exp(-mu / SCALE)                     between 0 and 1

A token may be unsure of its next token and lose nothing by leaving, because the layers above do
not know either: the largest probability does not see that, a gate does. It costs `RANK` products
with the stream and none with the vocabulary (CALM, Schuster et al. 2022, arXiv 2207.07061, trains a
classifier of agreement; the target here is the loss itself, which is what a threshold buys).

Nothing but the gates learns from their loss. It is taken at some positions of a pass only.

Legend: B rows, T positions, C width, V vocabulary, E exits, N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.head import Head
from holo_cli.layers.norm import rms_norm

RANK = 32
SCALE = 0.1  # nats: the expected cost at which the confidence is 1 / e
FLOOR = 1e-3  # nats: a cost below it counts as this, so that log mu has a bottom
WEIGHT = 0.1
POSITIONS = 32  # of each row that a gate learns from in a pass, at most


class ExitGates(nn.Module):
    """One gate for each of `exits` places to leave."""

    def __init__(self, exits: int, width: int) -> None:
        super().__init__()
        bound = (3.0 / width) ** 0.5
        self.down = nn.Parameter(torch.empty(exits, RANK, width).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(exits, RANK))
        self.bias = nn.Parameter(torch.full((exits,), -2.0))

    def log_cost(self, number: int | Tensor, x: Tensor) -> Tensor:
        """log mu of the stream x (..., C) at exit `number`, (...), float32 at least. `number` may
        be a tensor (1,), which torch.compile can follow."""
        down, up, bias = (
            p[number] if isinstance(number, int) else p.index_select(0, number)[0]
            for p in (self.down, self.up, self.bias)
        )
        inner = nn.functional.linear(rms_norm(x), down.to(x.dtype)).relu()
        found = nn.functional.linear(inner, up[None].to(x.dtype))[..., 0]
        return found.to(bias.dtype) + bias

    def confidence(self, number: int, x: Tensor) -> Tensor:
        """(..., C) -> (...) in [0, 1]."""
        return torch.exp(-self.log_cost(number, x).exp() / SCALE)

    def loss(self, number: int | Tensor, x: Tensor, last: Tensor, head: Head) -> Tensor:
        """The gate's loss from the streams x and `last`, both (B, T, C), after its layer and after
        the last: a scalar that depends on the gate alone."""
        stride = -(-x.shape[1] // POSITIONS)
        x, last = (s[:, ::stride].detach() for s in (x, last))
        return WEIGHT * self.misfit(number, x, exit_losses(x, last, head))

    def misfit(self, number: int | Tensor, x: Tensor, cost: Tensor) -> Tensor:
        """Mean of log mu + cost / mu over tokens, x (..., C) and cost (...): a scalar."""
        log_mu = self.log_cost(number, x)
        return (log_mu + cost * torch.exp(-log_mu)).mean()


@torch.no_grad()
def exit_losses(x: Tensor, last: Tensor, head: Head) -> Tensor:
    """KL(p_L || p_l) + FLOOR in nats, (...), of streams x and `last` (..., C)."""
    here, end = (head(rms_norm(s)).log_softmax(-1) for s in (x, last))
    return (end.exp() * (end - here)).sum(-1) + FLOOR
