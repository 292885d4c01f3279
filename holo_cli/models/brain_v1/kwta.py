"""k winners take all: of all hidden units, exactly the k largest fire.

    u = W_in x;  winners = the k largest of u_j + b_j;  y = sum over winners of W_out^j u_j |u_j|

The bias b raises units that win too seldom (boosting) and is used for the choice only; units above
zero go first, so that a winner is above zero wherever there are k of these. The square keeps the
sign of the others. (`activation = "relu"`: all units by u_j + b_j, and relu(u_j)^2, which is silent
where a raised winner is below zero.) Ties are broken by position, so there are always k winners.
Training computes every unit to find the largest; what it saves is memory, since only the winners'
values are kept for the backward pass. Decoding skips the rest of the second product. With
`predictor`, a low-rank map predicts which units may win, and evaluation and decoding choose among
those only; it is trained to separate winners from the
rest. With `dense_start` every unit wins at the start of training, and k at its end.

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
        self.dense = config.sparsity == "dense"
        self.k = self.units if self.dense else config.active_units(layer)
        self.dense_start = 0.0 if self.dense else config.dense_start
        self.training_k = self.k  # winners in training now; see `on_progress`
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
        self.candidates = self.units
        self.predictor_down: nn.Linear | None = None
        self.predictor_up: nn.Linear | None = None
        if config.predictor and self.k < self.units:
            self.candidates = max(self.k, round(config.predictor_share * self.units))
            self.predictor_down = nn.Linear(width, config.predictor, bias=False)
            self.predictor_up = nn.Linear(config.predictor, self.units, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.down.weight)

    def active_parameters(self) -> int:
        """All of W_in, to find the winners; the winners' part of W_out."""
        total = sum(p.numel() for p in self.parameters())
        return total - (self.units - self.k) * self.down.in_features

    def on_progress(self, fraction: float) -> None:
        """Set the number of winners in training: from all units geometrically down to k at
        `dense_start`, and k from there on."""
        done = min(1.0, fraction / self.dense_start) if self.dense_start else 1.0
        self.training_k = max(self.k, round(self.units * (self.k / self.units) ** done))

    # -- the choice -------------------------------------------------------------------------------

    def score(self, u: Tensor, among: Tensor | None = None) -> Tensor:
        """The values that units compete by, (N, U), without gradient; `among`: the units that the
        columns of u stand for, all of them unless given."""
        score = u.detach()
        if self.bias is None:
            return score
        bias = self.bias.detach() if among is None else self.bias.detach()[among]
        dtype = wide(u.dtype)
        score = score.to(dtype) + self.balance * bias.to(dtype)
        if self.signed:
            score = torch.where(u.detach() > 0, score, score - LATER)
        return score

    def predict(self, x: Tensor) -> Tensor | None:
        """(N, C) -> the predictor's scores, (N, U), with no gradient to x."""
        if self.predictor_down is None or self.predictor_up is None:
            return None
        scores: Tensor = self.predictor_up(self.predictor_down(x.detach()))
        return scores

    def choose(self, u: Tensor, predicted: Tensor | None, k: int) -> Tensor:
        """The k winners, (N, k); outside training only the predictor's candidates can win."""
        score = self.score(u)
        if predicted is not None and not self.training:
            allowed = winners(predicted, self.candidates)
            barred = torch.full_like(score, float("-inf"))
            score = barred.scatter(1, allowed, score.gather(1, allowed))
        return winners(score, k)

    # -- the whole --------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        tokens = x.flatten(0, 1)
        if len(tokens) <= FEW and not torch.is_grad_enabled() and not self.dense:
            rows = [self._single_token(token) for token in tokens]
            return torch.stack(rows).view(x.shape), {}
        up, down = self.up.weight, self.down.weight
        if self.two_four:
            up, down = sparsify_2_4(up), sparsify_2_4(down, dim=0)
        u = F.linear(tokens, up)
        aux: Aux = {}
        k = self.training_k if self.training else self.k
        if k == self.units:
            h = relu_squared(u)
        else:
            predicted = self.predict(tokens)
            chosen = self.choose(u, predicted, k)
            # on the way down from all units it is still part of the dense twin
            h = _WinnersSquared.apply(u, chosen, self.signed and k == self.k)
            if self.bias is not None and self.training:
                aux["balance"] = balance_term(self.bias, chosen)
            if predicted is not None and self.training:
                won = torch.zeros_like(predicted).scatter_(1, chosen, 1.0)
                aux["predictor"] = _balanced_bce(predicted, won)
        y = (h * self.scale) @ down.to(h.dtype)
        return self.dropout(y.view(x.shape)), aux

    def unit_outputs(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of (N, C) tokens, the output of each unit and whether it was allowed to fire, (N, U)
        each; for pictures and measures."""
        up = sparsify_2_4(self.up.weight) if self.two_four else self.up.weight
        u = F.linear(tokens, up)
        if self.k == self.units:
            return relu_squared(u), torch.ones_like(u, dtype=torch.bool)
        chosen = self.choose(u, self.predict(tokens), self.k)
        could = torch.zeros_like(u, dtype=torch.bool).scatter(1, chosen, True)
        return _WinnersSquared.apply(u, chosen, self.signed), could

    def _single_token(self, x: Tensor) -> Tensor:
        """One token, (C,) -> (C,): only the winners' part of W_out."""
        up, down = self.up.weight, self.down.weight
        predicted = self.predict(x[None])
        among: Tensor | None = None
        if predicted is not None:
            among = winners(predicted, self.candidates)[0]
            up = up[among]
        u = F.linear(x, sparsify_2_4(up) if self.two_four else up)
        chosen = winners(self.score(u[None], among), self.k)[0]
        won = u[chosen]
        h = won * won.abs() if self.signed else torch.relu(won).square()
        units = chosen if among is None else among[chosen]
        rows = sparsify_2_4(down, dim=0)[units] if self.two_four else down[units]
        return rows.to(h.dtype).T @ (h * self.scale)


def _balanced_bce(predicted: Tensor, won: Tensor) -> Tensor:
    """Logistic loss of predictions (N, U), with winners and others weighted to one half each."""
    dtype = wide(predicted.dtype)
    share = won.to(dtype).mean()
    weight = won / (2 * share) + (1 - won) / (2 * (1 - share))
    return F.binary_cross_entropy_with_logits(
        predicted.to(dtype), won.to(dtype), weight=weight.to(dtype)
    )
