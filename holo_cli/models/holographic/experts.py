"""Category experts: a mixture of experts whose router has one vector per category.

A token's affinity to each category is a softmax over inner products; the token goes through the k
experts of the highest, weighted by affinity. Tokens are sorted by expert, so that each expert is
two matrix products over its own tokens and nothing is computed only to be masked.

Balance, with f_j the share of tokens sent to category j and P_j its mean affinity:
- the Switch loss (Fedus et al. 2021), E sum_j f_j P_j, 1 at balance; differentiable through P.
  With several processes f is that of all their tokens, so that the mean of their losses is the loss
  of one process with the whole batch. Over the parts of an accumulation it is each part's own.
- a bias per category, added for the choice only (Wang et al. 2024). Unlike there it is a parameter
  that the optimizer moves: a term of value 0 gives it the gradient f_j - 1/E, so that overloaded
  categories become harder to choose. Nothing is kept outside parameters and optimizer state, and
  resuming is exact.

Legend: N tokens, C width, E experts, k experts per token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.grouped import group_sizes, grouped
from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.mlp import relu_squared
from holo_cli.layers.precision import product_dtype, wide
from holo_cli.layers.whole_batch import over_processes
from holo_cli.models.holographic.config import Config

FEW = (
    16  # compiled, up to so many pairs of a token and an expert read the experts' weights directly
)


class Experts(FeedForward):
    """`experts` MLPs of the usual size, of which each token uses `experts_top_k`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.experts = config.width, config.experts
        self.top, self.balance = config.experts_top_k, config.balance
        self.hidden = round(config.mlp_ratio * width)
        self.category = nn.Linear(width, self.experts, bias=False)  # a row per category
        self.category.weight.no_muon = True  # type: ignore[attr-defined]
        # the experts' matrices, stacked
        self.up = nn.Linear(width, self.experts * self.hidden, bias=False)
        self.down = nn.Linear(self.hidden, self.experts * width, bias=False)
        for stacked in (self.up, self.down):
            stacked.weight.splits = self.experts  # type: ignore[attr-defined]
        self.bias = nn.Parameter(torch.zeros(self.experts)) if self.balance else None
        self.dropout = nn.Dropout(config.dropout)

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.down.weight)

    def active_parameters(self) -> int:
        bias = self.bias.numel() if self.bias is not None else 0
        routed = self.top * 2 * self.category.in_features * self.hidden
        return self.category.weight.numel() + bias + routed

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        tokens = x.flatten(0, 1)
        affinity, chosen = self.route(tokens)
        gates = affinity.gather(1, chosen)
        if self.top > 1:  # a single gate divided by itself would have no gradient
            gates = gates / gates.sum(1, keepdim=True)
        y = self._through(tokens, chosen) * gates[..., None].to(x.dtype)
        aux = {"balance": self._balance_loss(affinity, chosen)} if self.balance else {}
        return self.dropout(y.sum(1).view(x.shape)), aux

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> affinities (N, E), each row of sum 1, and the experts chosen, (N, k)."""
        affinity = self.category(tokens).to(wide(tokens.dtype)).softmax(1)
        score = affinity.detach()
        if self.bias is not None:
            score = score + self.bias.detach().to(score.dtype)
        return affinity, score.topk(self.top, dim=1).indices

    def _through(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """(N, C), (N, k) -> each token's k experts applied to it, (N, k, C)."""
        flat = chosen.flatten()
        ups = self.up.weight.view(self.experts, self.hidden, -1)
        downs = self.down.weight.view(self.experts, -1, self.hidden)
        if torch.compiler.is_compiling() and not self.training and len(flat) <= FEW:
            dtype = product_dtype(tokens)
            x = tokens.to(dtype).repeat_interleave(self.top, 0)[..., None]
            h = relu_squared(ups[flat].to(dtype) @ x)
            return (downs[flat].to(dtype) @ h).view(*chosen.shape, -1)
        order = flat.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)  # the inverse of `order`
        sizes = group_sizes(flat, self.experts)
        groups: Tensor = _Sorted.apply(tokens, order, place, self.top)
        if torch.compiler.is_compiling():  # to which the sizes are data
            done = self._grouped(groups, ups, downs, sizes)
        else:
            linear = nn.functional.linear
            done = torch.cat(
                [
                    linear(relu_squared(linear(group, up)), down)
                    for group, up, down in zip(
                        groups.split(sizes.tolist()), ups, downs, strict=True
                    )
                ]
            )
        back: Tensor = _Sorted.apply(done, place, order, 1)
        return back.view(*chosen.shape, -1)

    def _grouped(self, groups: Tensor, ups: Tensor, downs: Tensor, sizes: Tensor) -> Tensor:
        """The experts applied to tokens sorted by expert, (N k, C) -> the same shape."""
        dtype = product_dtype(groups)
        ends = sizes.cumsum(0).to(torch.int32)
        hidden = relu_squared(grouped(groups.to(dtype), ups.to(dtype).mT, ends))
        return grouped(hidden, downs.to(dtype).mT, ends)

    def _balance_loss(self, affinity: Tensor, chosen: Tensor) -> Tensor:
        """The weighted Switch loss, plus a term of value 0 with the bias's gradient."""
        load = group_sizes(chosen, self.experts) / chosen.numel()
        load = load.to(affinity.dtype)
        if self.training:
            load = over_processes(load)
        loss = self.experts * (load * affinity.mean(0)).sum()
        if self.bias is not None:
            loss = loss + ((self.bias - self.bias.detach()) * (load - 1 / self.experts)).sum()
        return self.balance * loss


class _Sorted(torch.autograd.Function):
    """x[order // copies], where `order` is a permutation and `place` its inverse.

    The gradient is a lookup too, and a sum over copies; that of indexing would add row by row.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.copies = copies
        return x.index_select(0, order if copies == 1 else order // copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        dx = grads[0].index_select(0, place)
        if ctx.copies > 1:
            dx = dx.unflatten(0, (-1, ctx.copies)).sum(1)
        return dx, None, None, None
