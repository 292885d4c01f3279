"""k winners take all: of all hidden units, exactly the k largest fire.

    u = W_in x;  winners = the k largest of u_j + b_j;  y = sum over winners of W_out^j relu(u_j)^2

The bias b raises units that win too seldom (boosting); it takes part in the choice and in nothing
else. Equal values are told apart by position, so that there are k winners whatever the number
format. Training computes every unit, since the largest are not known before; what it saves is
memory, for of the units' values only the winners' are kept. Decoding skips the rest of the second
product. With `predictor`, a map of low rank guesses which units may win and only these are
computed in decoding; it learns to tell winners from the rest, and evaluation obeys it as well.
With `dense_start` training begins with every unit a winner and ends with k.

`sparsity = "dense"` is the same with every unit a winner: the twin to compare with.

Legend: N tokens, C width, U hidden units, k winners.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.mlp import relu_squared
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.inhibition import Inhibition
from holo_cli.models.brain_v1.sparsity_2_4 import two_of_four

EVENNESS = 0.01  # AdamW's steps do not depend on it; small, so that clipping hardly sees it
FEW = 4  # tokens up to which winners' rows of W_out are picked instead of multiplying all


def winners(score: Tensor, k: int) -> Tensor:
    """(N, U) -> the columns of each row's k largest, (N, k) int64, in no particular order."""
    return score.topk(k, dim=1, sorted=False).indices


def evenness(bias: Tensor, chosen: Tensor) -> Tensor:
    """A term of value 0 whose gradient makes the optimizer even out the choice.

    bias (n,), chosen (N, c) which of n each token chose. The gradient of b_j is the tokens that
    chose j, relative to the mean of all, minus 1: what is chosen too often becomes harder to
    choose. The bias is a parameter that the optimizer moves, so that a choice depends on nothing
    outside parameters and a resumed run goes on to the bit.
    """
    counts = torch.bincount(chosen.flatten(), minlength=len(bias)).to(bias.dtype)
    unevenness = counts / counts.mean() - 1
    return EVENNESS * ((bias - bias.detach()) * unevenness).mean()


class _Winning(torch.autograd.Function):
    """relu(u)^2 of the winners and zero elsewhere, (N, U); keeps k numbers a token."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, chosen: Tensor) -> Tensor:
        h = torch.relu(u.gather(1, chosen))
        ctx.save_for_backward(h, chosen)
        ctx.units = u.shape[1]
        return torch.zeros_like(u).scatter_(1, chosen, h * h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        h, chosen = ctx.saved_tensors
        dh = grads[0].gather(1, chosen).mul_(h).mul_(2.0)
        return dh.new_zeros(len(dh), ctx.units).scatter_(1, chosen, dh), None


class Free(FeedForward):
    """The MLP in which all units compete freely, or with `sparsity = "dense"` none has to."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        width, self.units = config.width, config.hidden
        self.dense = config.sparsity == "dense"
        self.k = self.units if self.dense else config.active_units(layer)
        self.dense_start = 0.0 if self.dense else config.dense_start
        self.training_k = self.k  # winners in training now; see `on_progress`
        self.columns, self.balance = config.columns, config.balance
        self.two_four = config.two_four != "none"
        self.up = nn.Linear(width, self.units, bias=False)
        # W_out transposed, (U, C): what a winner sends is a row, one after the other in memory
        self.down = nn.Linear(width, self.units, bias=False)
        # Muon's step for a (C, U) matrix is smaller by this than for its transpose
        self.scale = min(1.0, (width / self.units) ** 0.5)
        self.bias: nn.Parameter | None = None
        if self.k < self.units and self.balance:
            self.bias = nn.Parameter(torch.zeros(self.units))
        self.inhibition = Inhibition(self.columns) if config.inhibition else None
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
        """All of W_in, since every unit must be known; the winners' part of W_out."""
        total = sum(p.numel() for p in self.parameters())
        return total - (self.units - self.k) * self.down.in_features

    def on_progress(self, fraction: float) -> None:
        """Set the number of winners in training: from all units geometrically down to k at
        `dense_start`, and k from there on."""
        done = min(1.0, fraction / self.dense_start) if self.dense_start else 1.0
        self.training_k = max(self.k, round(self.units * (self.k / self.units) ** done))

    # -- the choice -------------------------------------------------------------------------------

    def score(self, u: Tensor) -> Tensor:
        """What units compete by, (N, U), without gradient."""
        score = u.detach()
        if self.bias is not None:
            wide = torch.promote_types(u.dtype, torch.float32)
            score = score.to(wide) + self.balance * self.bias.detach().to(wide)
        return score

    def guess(self, x: Tensor) -> Tensor | None:
        """(N, C) -> the predictor's scores, (N, U); it learns from what it sees of x alone."""
        if self.predictor_down is None or self.predictor_up is None:
            return None
        scores: Tensor = self.predictor_up(self.predictor_down(x.detach()))
        return scores

    def choose(self, u: Tensor, guess: Tensor | None, k: int) -> Tensor:
        """The k winners, (N, k); outside training only the predictor's candidates can win."""
        score = self.score(u)
        if guess is not None and not self.training:
            allowed = winners(guess, self.candidates)
            barred = torch.full_like(score, float("-inf"))
            score = barred.scatter(1, allowed, score.gather(1, allowed))
        return winners(score, k)

    # -- the whole --------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        tokens = x.flatten(0, 1)
        if len(tokens) <= FEW and not torch.is_grad_enabled() and not self.dense:
            rows = [self._one(token) for token in tokens]
            return torch.stack(rows).view(x.shape), {}
        up, down = self.up.weight, self.down.weight
        if self.two_four:
            up, down = two_of_four(up), two_of_four(down, dim=0)
        u = F.linear(tokens, up)
        aux: Aux = {}
        k = self.training_k if self.training else self.k
        if k == self.units:
            h = relu_squared(u)
        else:
            guess = self.guess(tokens)
            chosen = self.choose(u, guess, k)
            h = _Winning.apply(u, chosen)
            if self.bias is not None and self.training:
                aux["balance"] = evenness(self.bias, chosen)
            if guess is not None and self.training:
                won = torch.zeros_like(guess).scatter_(1, chosen, 1.0)
                aux["predictor"] = _told_apart(guess, won)
        y = (self._inhibited(h) * self.scale) @ down.to(h.dtype)
        return self.dropout(y.view(x.shape)), aux

    def sent(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What each unit sends for (N, C) tokens and whether it could, (N, U) each; for pictures
        and measures."""
        up = two_of_four(self.up.weight) if self.two_four else self.up.weight
        u = F.linear(tokens, up)
        if self.k == self.units:
            return self._inhibited(relu_squared(u)), torch.ones_like(u, dtype=torch.bool)
        chosen = self.choose(u, self.guess(tokens), self.k)
        could = torch.zeros_like(u, dtype=torch.bool).scatter(1, chosen, True)
        return self._inhibited(_Winning.apply(u, chosen)), could

    def _inhibited(self, h: Tensor) -> Tensor:
        if self.inhibition is None:
            return h
        by_column = h.unflatten(1, (self.columns, -1))  # (N, G, m)
        wide = torch.promote_types(h.dtype, torch.float32)
        factor = self.inhibition(by_column.to(wide).square().mean(2))
        return (by_column * factor[..., None].to(h.dtype)).flatten(1)

    def _one(self, x: Tensor) -> Tensor:
        """One token, (C,) -> (C,): only what its winners need."""
        up, down = self.up.weight, self.down.weight
        guess = self.guess(x[None])
        among: Tensor | None = None
        if guess is not None:
            among = winners(guess, self.candidates)[0]
            up = up[among]
        u = F.linear(x, two_of_four(up) if self.two_four else up)
        score = u.to(torch.promote_types(u.dtype, torch.float32))
        if self.bias is not None:
            score = score + self.balance * (self.bias if among is None else self.bias[among])
        chosen = winners(score[None], self.k)[0]
        h = torch.relu(u[chosen]).square()
        units = chosen if among is None else among[chosen]
        if self.inhibition is not None:
            every = h.new_zeros(self.units)
            every[units] = h
            h = self._inhibited(every[None])[0, units]
        rows = two_of_four(down, dim=0)[units] if self.two_four else down[units]
        return rows.to(h.dtype).T @ (h * self.scale)


def _told_apart(guess: Tensor, won: Tensor) -> Tensor:
    """Logistic loss of the guesses, (N, U), winners and others counting for one half each."""
    wide = torch.promote_types(guess.dtype, torch.float32)
    share = won.to(wide).mean()
    weight = won / (2 * share) + (1 - won) / (2 * (1 - share))
    return F.binary_cross_entropy_with_logits(guess.to(wide), won.to(wide), weight=weight.to(wide))
