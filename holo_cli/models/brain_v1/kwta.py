"""k winners take all: of all hidden units, exactly the k largest fire.

    u = W_in x;  winners = the k largest of u_j + b_j;  y = sum over winners of W_out^j u_j |u_j|

The bias b raises units that win too seldom (boosting) and is used for the choice only; units above
zero go first, so that a winner is above zero wherever there are k of these. The square keeps the
sign of the others. (`activation = "relu"`: all units by u_j + b_j, and relu(u_j)^2, which is silent
where a raised winner is below zero.) Ties are broken by position, so there are always k winners.
Training computes every unit to find the largest; what it saves is memory, since only the winners'
values are kept for the backward pass. Decoding skips the rest of the second product.

`sparsity = "dense"` is the same with every unit a winner: the baseline.

Legend: N tokens, C width, U hidden units, k winners.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holo_cli.layers.grouped import group_sizes
from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.mlp import relu_squared
from holo_cli.layers.precision import wide
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.sparsity_2_4 import sparsify_2_4

BALANCE_SCALE = 0.01  # AdamW is invariant to it; small, so that it hardly changes clipping
LATER = 1e4  # taken from the score of a unit below zero: it wins only where too few are above
FEW = 4  # up to so many tokens only the winners' rows of W_out are multiplied


def winners(score: Tensor, k: int) -> Tensor:
    """(N, U) -> the columns of each row's k largest, (N, k) int64, in no particular order."""
    return score.topk(k, dim=1, sorted=False).indices


def balance_term(bias: Tensor, chosen: Tensor) -> Tensor:
    """A term of value 0 whose gradient makes the optimizer balance the choice.

    bias (n,), chosen (N, c) which of n each token chose. The gradient of b_j is the number of
    tokens that chose j, relative to the mean, minus 1: what is chosen too often becomes harder to
    choose. The bias is a parameter, so that nothing is kept outside parameters and optimizer state
    and resuming is exact.
    """
    counts = group_sizes(chosen, len(bias)).to(bias.dtype)
    excess = counts / counts.mean() - 1
    return BALANCE_SCALE * ((bias - bias.detach()) * excess).mean()


class _WinnersSquared(torch.autograd.Function):
    """relu(u)^2 of the winners, or u |u| if `signed`, zero elsewhere, (N, U); keeps k numbers per
    token for backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, chosen: Tensor, signed: bool) -> Tensor:
        won = u.gather(1, chosen)
        h = won.abs() if signed else torch.relu(won)
        ctx.save_for_backward(h, chosen)
        ctx.units = u.shape[1]
        return torch.zeros_like(u).scatter_(1, chosen, won * h if signed else h * h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        h, chosen = ctx.saved_tensors
        dh = grads[0].gather(1, chosen).mul_(h).mul_(2.0)
        return dh.new_zeros(len(dh), ctx.units).scatter_(1, chosen, dh), None, None


class KWTA(FeedForward):
    """An MLP whose k largest units are kept; all of them with `sparsity = "dense"`."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        width, self.units = config.width, config.hidden
        self.k = self.units if config.sparsity == "dense" else config.active_units(layer)
        self.signed = config.activation == "signed"
        self.columns, self.balance = config.columns, config.balance
        self.two_four = config.two_four != "none"
        self.up = nn.Linear(width, self.units, bias=False)
        # W_out transposed, (U, C): a winner's part of it is a contiguous row
        self.down = nn.Linear(width, self.units, bias=False)
        # Muon's step is smaller by this for a (C, U) matrix than for its transpose
        self.scale = min(1.0, (width / self.units) ** 0.5)
        self.bias: nn.Parameter | None = None
        if self.k < self.units and self.balance:
            self.bias = nn.Parameter(torch.zeros(self.units))
        self.dropout = nn.Dropout(config.dropout)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.down.weight)

    def active_parameters(self) -> int:
        """All of W_in, to find the winners; the winners' part of W_out."""
        total = sum(p.numel() for p in self.parameters())
        return total - (self.units - self.k) * self.down.in_features

    # -- the choice -------------------------------------------------------------------------------

    def score(self, u: Tensor) -> Tensor:
        """The values that units compete by, (N, U), without gradient."""
        score = u.detach()
        if self.bias is None:
            return score
        dtype = wide(u.dtype)
        score = score.to(dtype) + self.balance * self.bias.detach().to(dtype)
        if self.signed:
            score = torch.where(u.detach() > 0, score, score - LATER)
        return score

    def choose(self, u: Tensor) -> Tensor:
        """The k winners, (N, k)."""
        return winners(self.score(u), self.k)

    # -- the whole --------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        tokens = x.flatten(0, 1)
        if len(tokens) <= FEW and not torch.is_grad_enabled() and self.k < self.units:
            rows = [self._single_token(token) for token in tokens]
            return torch.stack(rows).view(x.shape), {}
        up, down = self.up.weight, self.down.weight
        if self.two_four:
            up, down = sparsify_2_4(up), sparsify_2_4(down, dim=0)
        u = F.linear(tokens, up)
        aux: Aux = {}
        if self.k == self.units:
            h = relu_squared(u)
        else:
            chosen = self.choose(u)
            h = _WinnersSquared.apply(u, chosen, self.signed)
            if self.bias is not None and self.training:
                aux["balance"] = balance_term(self.bias, chosen)
        y = (h * self.scale) @ down.to(h.dtype)
        return self.dropout(y.view(x.shape)), aux

    def unit_outputs(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of (N, C) tokens, the output of each unit and whether it was allowed to fire, (N, U)
        each; for pictures and measures."""
        up = sparsify_2_4(self.up.weight) if self.two_four else self.up.weight
        u = F.linear(tokens, up)
        if self.k == self.units:
            return relu_squared(u), torch.ones_like(u, dtype=torch.bool)
        chosen = self.choose(u)
        could = torch.zeros_like(u, dtype=torch.bool).scatter(1, chosen, True)
        return _WinnersSquared.apply(u, chosen, self.signed), could

    def _single_token(self, x: Tensor) -> Tensor:
        """One token, (C,) -> (C,): only the winners' part of W_out."""
        up, down = self.up.weight, self.down.weight
        u = F.linear(x, sparsify_2_4(up) if self.two_four else up)
        chosen = self.choose(u[None])[0]
        won = u[chosen]
        h = won * won.abs() if self.signed else torch.relu(won).square()
        rows = sparsify_2_4(down, dim=0)[chosen] if self.two_four else down[chosen]
        return rows.to(h.dtype).T @ (h * self.scale)
