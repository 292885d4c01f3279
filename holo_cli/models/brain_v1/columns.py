"""An MLP of columns, a fine-grained mixture of experts: a few columns are kept per token, and only
those are computed.

    r = W_r x,   kept = the c columns of largest r_j + b_j              (b: for balance only)
    y = sum over kept columns j of  W_out^j [ s h_j ],   h_j = u |u|,   u = W_in^j x + r_j

The router's value is added to all units of its column, so it sets how strongly the column fires and
learns through every unit that does. With `gate = "sigmoid"` it is a factor sigmoid(r_j) on the
column's output instead, not renormalized (sigma-MoE, arXiv 2310.10837). With `sparsity = "self"`
there is no router,

    n_j = |W_in^j[:, :g] x[:g]| sqrt(C / (g m)),   kept = the c columns of largest n_j + b_j

and u = W_in^j x: the loudest columns are kept, judged by what their own units make of the first g
inputs. That choice has no gradient and no parameters of its own.

The square keeps its sign, so that every unit of a kept column fires; `activation = "relu"`,
relu(u)^2, leaves a good part of them silent. s = sqrt(C / U) only sets the step size of W_out. If
fewer units may fire than the kept columns have, the largest of them do.

Tokens are sorted by column, so training is a product per column over the tokens that chose it
(`layers/grouped.py`); decoding one token is a few products of single columns with a vector. The
choice depends on the token alone: there is no capacity limit, and the bias b moves only between
steps, so a later token cannot change an earlier one's columns.

Legend: N tokens, C width, U hidden units, G columns, m units of each, c kept, P = N c pairs, g the
inputs that a column's own choice reads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.grouped import SortedPairs, grouped
from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.mlp import relu_squared
from holo_cli.layers.precision import product_dtype, wide
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.kwta import balance_term, winners
from holo_cli.models.brain_v1.sparsity_2_4 import sparsify_2_4

ALWAYS = 1e6  # added to the score of a shared column
FEW = 16  # compiled, up to so many pairs of a token and a column read the columns' weights directly


class Columns(FeedForward):
    """The MLP of one layer as columns."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        width, self.columns = config.width, config.columns
        self.units, self.kept = config.column_units, config.kept_columns(layer)
        self.k = config.active_units(layer)
        self.shared, self.balance = config.shared_columns, config.balance
        self.signed = config.activation == "signed"
        self.masked, self.two_four = config.masked, config.two_four != "none"
        self.router: nn.Linear | None = None
        self.driven, self.reads = False, config.selection_width
        if config.sparsity != "self":
            self.router = nn.Linear(width, self.columns, bias=False)
            self.driven = config.gate == "drive"
        self.up = nn.Linear(width, config.hidden, bias=False)
        # W_out transposed, (G m, C): a column's part of it is one piece of memory
        self.down = nn.Linear(width, config.hidden, bias=False)
        if self.router is not None:
            for stacked in (self.up, self.down):
                # Muon orthogonalises each column by itself: together, busy columns would set the
                # scale; columns that choose themselves learn better together
                stacked.weight.splits = self.columns  # type: ignore[attr-defined]
        # with it a step of Muon moves an entry of W_out as far as one of a dense (C, U) matrix
        self.scale = min(1.0, (width / config.hidden) ** 0.5)
        self.bias: nn.Parameter | None = None
        if self.balance and self.kept < self.columns:
            self.bias = nn.Parameter(torch.zeros(self.columns))
        self.dropout = nn.Dropout(config.dropout)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.down.weight)

    def active_parameters(self) -> int:
        """Those of the columns kept, and what the choice reads: the router, or the first inputs of
        all other columns."""
        computed = self.columns if self.masked else self.kept
        size = self.units * (self.up.in_features + self.down.in_features)
        choice = (self.columns - computed) * self.units * self.reads
        if self.router is not None:
            choice = self.router.weight.numel()
        bias = self.columns if self.bias is not None else 0
        return choice + bias + computed * size

    # -- the choice -------------------------------------------------------------------------------

    def scores(self, tokens: Tensor) -> tuple[Tensor | None, Tensor]:
        """(N, C) -> the router's values, None without a router, and the scores that columns compete
        by, without gradient, (N, G) each: values or loudness, with the balancing bias."""
        value: Tensor | None = None
        if self.router is None:
            score = self.loudness(tokens)
        else:
            # a product with a vector is several times faster than with one row
            one, weight = len(tokens) == 1, self.router.weight
            value = weight.to(tokens.dtype).mv(tokens[0])[None] if one else self.router(tokens)
            value = value.to(wide(value.dtype))
            score = value.detach()
        if self.bias is not None:
            bias = self.bias.detach().to(score.dtype)
            score = torch.add(score, bias, alpha=self.balance)
        return value, score

    def route(self, tokens: Tensor) -> tuple[Tensor | None, Tensor]:
        """(N, C) -> the router's values of the kept columns, None without a router, and the
        columns' indices, (N, c) each."""
        value, score = self.scores(tokens)
        if self.shared:
            score = score.clone()
            score[:, : self.shared] += ALWAYS
        chosen = winners(score, self.kept)
        return None if value is None else value.gather(1, chosen), chosen

    @torch.no_grad()
    def loudness(self, tokens: Tensor) -> Tensor:
        """(N, C) -> (N, G) without gradient: of each column, the root mean square over its units of
        what they compute from the first inputs, scaled to that of all inputs."""
        read, weight = tokens[:, : self.reads], self.up.weight[:, : self.reads]
        if self.two_four:
            weight = sparsify_2_4(weight)
        if len(tokens) == 1:
            z = weight.to(read.dtype).mv(read[0])[None]
        else:
            z = nn.functional.linear(read, weight)
        z = z.unflatten(1, (self.columns, -1))
        size = torch.linalg.vector_norm(z, dim=2, dtype=wide(z.dtype))
        return size * (self.up.in_features / (self.reads * self.units)) ** 0.5

    # -- the whole --------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        other = self.masked or self.training or torch.is_grad_enabled()
        compiling = torch.compiler.is_compiling()
        if x.shape[:2].numel() == 1 and not other and not compiling:
            return self._single_token(x[0, 0]).view(x.shape), {}
        tokens = x.flatten(0, 1)
        value, chosen = self.route(tokens)
        if self.masked:
            y = self._masked(tokens, value, chosen)
        elif compiling and not other and chosen.numel() <= FEW:
            y = self._gathered(tokens, value, chosen)
        else:
            y = self._sorted(tokens, value, chosen)
        aux: Aux = {}
        if self.bias is not None and self.training:
            aux["balance"] = balance_term(self.bias, chosen)
        return self.dropout(y.view(x.shape)), aux

    def weights(self) -> tuple[Tensor, Tensor]:
        """Effective W_in and W_out by column, (G, m, C) each."""
        up, down = self.up.weight, self.down.weight
        if self.two_four:
            up, down = sparsify_2_4(up), sparsify_2_4(down, dim=0)
        shape = (self.columns, self.units, -1)
        return up.reshape(shape), down.reshape(shape)

    def drive(self, u: Tensor, value: Tensor | None) -> Tensor:
        """What units fire by: their pre-activations (N, c, m) with the router's values (N, c)."""
        return u + value[..., None].to(u.dtype) if self.driven and value is not None else u

    def activate(self, u: Tensor, value: Tensor | None) -> Tensor:
        """Pre-activations (N, c, m) of the kept columns -> outputs of their units, same shape."""
        h = self._fire(self.drive(u, value))
        if self.k < self.kept * self.units:
            h = h * self._winners(h)
        if self.driven or value is None:
            return h * self.scale
        return h * (self.scale * torch.sigmoid(value[..., None].to(u.dtype)))

    def _fire(self, u: Tensor) -> Tensor:
        """What units send for their inputs, any shape."""
        if self.signed:
            return u * u.abs()
        return relu_squared(u) if torch.is_grad_enabled() else _relu_squared(u)

    def _winners(self, h: Tensor) -> Tensor:
        """1 for the k largest units of each token, 0 for the others, (N, c, m)."""
        flat = h.detach().flatten(1)
        return torch.zeros_like(flat).scatter_(1, winners(flat, self.k), 1.0).view(h.shape)

    def _sorted(self, tokens: Tensor, value: Tensor | None, chosen: Tensor) -> Tensor:
        """(N, C) -> (N, C), a product per column over the tokens that chose it."""
        pairs = SortedPairs(chosen, self.columns)
        up, down = (w.to(product_dtype(tokens)) for w in self.weights())
        u = grouped(pairs.spread(tokens.to(up.dtype)), up.mT, pairs.ends)
        if self.k == self.kept * self.units:
            # pairs are independent: no need to return to the order of tokens
            at = None if value is None else pairs.by_place(value[..., None])
            h = self.activate(u[:, None], at)[:, 0]
        else:
            h = pairs.by_place(self.activate(pairs.by_token(u), value))
        return pairs.gather(grouped(h, down, pairs.ends))

    def _single_token(self, x: Tensor) -> Tensor:
        """A single token, (C,) -> (C,), by views of the kept columns' weights.

        Few operations, since for one token each costs as much as a good part of a product.
        """
        value, chosen = self.route(x[None])
        size, dtype = self.units, product_dtype(x)
        up, down = self.up.weight, self.down.weight
        starts = [n * size for n in chosen[0].tolist()]
        ups, downs = [up[at : at + size] for at in starts], [down[at : at + size] for at in starts]
        if self.two_four:
            ups, downs = [sparsify_2_4(w) for w in ups], [sparsify_2_4(w, dim=0) for w in downs]
        if dtype != up.dtype:
            x = x.to(dtype)
            ups, downs = [w.to(dtype) for w in ups], [w.to(dtype) for w in downs]
        h = self.activate(torch.stack([w.mv(x) for w in ups])[None], value)[0]
        y = downs[0].T.mv(h[0])
        for w, output in zip(downs[1:], h[1:], strict=True):
            y.addmv_(w.T, output)
        return y

    def _gathered(self, tokens: Tensor, value: Tensor | None, chosen: Tensor) -> Tensor:
        """`_sorted` of a few tokens by products of each token's own columns: for a compiler, to
        which the views of `_single_token` would be data."""
        dtype = product_dtype(tokens)
        up, down = (w[chosen].to(dtype) for w in self.weights())  # (N, c, m, C)
        u = (up @ tokens.to(dtype)[:, None, :, None])[..., 0]
        h = self.activate(u, value).to(dtype)
        return (h.flatten(1)[:, None] @ down.flatten(1, 2))[:, 0]

    def _masked(self, tokens: Tensor, value: Tensor | None, chosen: Tensor) -> Tensor:
        """`_sorted` by computing every column and masking, for comparison only."""
        up, down = self.weights()
        u = nn.functional.linear(tokens, up.flatten(0, 1)).unflatten(1, (self.columns, -1))
        index = chosen[..., None].expand(-1, -1, self.units)
        h = self.activate(u.gather(1, index), value)
        every = torch.zeros_like(u).scatter(1, index, h)
        return every.flatten(1) @ down.flatten(0, 1).to(every.dtype)

    def unit_outputs(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of (N, C) tokens, the output of each unit and whether it was allowed to fire, (N, U)
        each. Computes every column: for pictures and measures."""
        value, chosen = self.route(tokens)
        u = nn.functional.linear(tokens, self.weights()[0].flatten(0, 1))
        u = u.unflatten(1, (self.columns, -1))
        index = chosen[..., None].expand(-1, -1, self.units)
        kept = u.gather(1, index)
        h = self.activate(kept, value)
        could = torch.ones_like(h)
        if self.k < self.kept * self.units:
            could = self._winners(self._fire(self.drive(kept, value)))
        blank = torch.zeros_like(u)
        return (
            blank.scatter(1, index, h).flatten(1),
            blank.scatter(1, index, could.to(u.dtype)).flatten(1) > 0,
        )


def _relu_squared(x: Tensor) -> Tensor:
    """relu(x)^2 without gradient in two operations: for a single token their number is the cost."""
    h = torch.relu(x)
    return h.mul_(h)
