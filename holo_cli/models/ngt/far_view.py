"""The page `far`: which tokens attract one by one, and which as the body of a block.

Legend: T tokens, H heads, W tokens per block, K blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holo_cli.errors import UsageError
from holo_cli.models.figures import axis, bar, heat, named, short
from holo_cli.models.views import Picture, See, Table, layer_names
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel

BEYOND = 3  # blocks more than a token needs before it meets a body, where there is no text
MOST = 1024  # tokens read, whatever the blocks
MOST_BARS = 128  # tokens drawn one by one; of longer texts, means over as many groups


def length(page: str, config: object) -> int:
    """Tokens that a page reads; 0 where the usual number will do."""
    if page != "far" or getattr(config, "far_field", "exact") != "blocks":
        return 0
    block, exact = getattr(config, "far_block", 0), getattr(config, "exact_blocks", 0)
    return max(16, min(MOST, block * (exact + 2 + BEYOND)))


def far(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """(T,) int64 -> where the weight of each token comes from, and which blocks it opens."""
    from holo_cli.models.ngt.diagnostics import gravity_mixers, snapshots
    from holo_cli.models.ngt.kernels import Gravity
    from holo_cli.models.ngt.model import Model

    assert isinstance(model, Model)
    mixers = gravity_mixers(model)
    if mixers[0].far is None:
        raise UsageError(
            "This model has no far field (model.far_field is exact): all tokens attract one by "
            "one.",
            next_step="Train with --set model.far_field=blocks.",
        )
    names = layer_names(len(mixers))[1:]
    block, exact = mixers[0].far.block, mixers[0].far.exact
    shares, whole, opened = {}, {}, {}
    for name, mixer, layer in zip(names, mixers, snapshots(model, tokens[None]), strict=True):
        assert mixer.far is not None
        assert isinstance(mixer.kernel, Gravity)
        p = layer.particles
        weight, of_body = mixer.far.weights_and_bodies(mixer.kernel, p.q, p.k, p.m)
        shares[name] = fields(weight[0], of_body[0], block)  # (3, T)
        whole[name], opened[name] = by_block(weight[0], of_body[0], block)
    met = max(0, len(tokens) - block * (exact + 2))
    count = -(-len(tokens) // block)
    best = max(names, key=lambda name: float(shares[name][2].mean()))
    return [
        Picture(
            "Near field, opened blocks and bodies",
            f"The share of each token's weight, mean over heads: from its own block of "
            f"{counted(block, 'token')} and the one before, token by token; from the "
            f"heaviest older blocks, {exact} of them, token by token; and from "
            "all other blocks, one body each. Of a long text, means over neighbouring tokens.",
            {name: _bars(shares[name]) for name in names},
            {
                "barmode": "stack",
                "bargap": 0,
                "xaxis": axis("position"),
                "yaxis": axis("share of the weight"),
            },
            choice="Layer",
            opens=best,
            see=_see(best, shares[best], met, block, exact, len(tokens)),
            tables=[_means(shares)],
        ),
        Picture(
            "Weight between blocks",
            "A row is a block whose tokens are attracted, a column one that attracts; weights are "
            "means over heads and the tokens of the row.",
            {name: [heat(whole[name], "row %{y}, column %{x}: %{z}")] for name in names},
            {
                "xaxis": _whole("block that attracts", count),
                "yaxis": _whole("block", count, reverse=True),
            },
            choice="Layer",
            opens=best,
        ),
        Picture(
            "Which blocks are opened",
            "The share of the tokens and heads of a block (row) for which an older block (column) "
            "attracts token by token; the rest of them see its body.",
            {name: [heat(opened[name], "row %{y}, column %{x}: %{z}")] for name in names},
            {"xaxis": _whole("older block", count), "yaxis": _whole("block", count, reverse=True)},
            choice="Layer",
            opens=best,
        ),
    ]


def fields(weight: Tensor, of_body: Tensor, block: int) -> Tensor:
    """Weights and whether they come from bodies, (H, T, T) -> shares of the near field, of opened
    blocks and of bodies, (3, T), mean over heads; columns of sum 1."""
    import torch

    own = torch.arange(weight.shape[1], device=weight.device) // block
    near = own[None] >= own[:, None] - 1  # (T, T)
    body = (weight * of_body).sum(-1).mean(0)
    close = (weight * (near & ~of_body)).sum(-1).mean(0)
    return torch.stack((close, (1 - close - body).clamp_min(0), body))


def by_block(weight: Tensor, of_body: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """(H, T, T) -> the weight of each block for each, (K, K), and the share of (head, token) pairs
    for which an older one is open, NaN where there is none to open."""
    import torch

    length = weight.shape[1]
    own = torch.arange(length, device=weight.device) // block
    count = int(own[-1]) + 1
    member = torch.nn.functional.one_hot(own, count).to(weight.dtype)  # (T, K)
    size = member.sum(0)[:, None]
    between = member.T @ weight.mean(0) @ member / size
    later = torch.ones(count, count, dtype=torch.bool, device=weight.device).triu(1)
    first = torch.arange(count, device=weight.device) * block
    as_body = member.T @ of_body.to(weight.dtype).mean(0)[:, first] / size
    return between.masked_fill(later, float("nan")), (1 - as_body).masked_fill(
        torch.ones_like(later).triu(-1), float("nan")
    )


def _bars(shares: Tensor) -> list[dict[str, object]]:
    length = shares.shape[1]
    step = -(-length // MOST_BARS)
    means = [part.mean(1).tolist() for part in shares.split(step, dim=1)]
    starts = range(0, length, step)
    names = ("near field", "opened blocks", "bodies")
    return [
        bar(name, starts, [short(mean[i]) for mean in means], tint)
        for i, (name, tint) in enumerate(zip(names, (0, 2, 1), strict=True))
    ]


def _see(name: str, shares: Tensor, met: int, block: int, exact: int, length: int) -> See:
    def see(labels: Sequence[str]) -> str:
        if met == 0:
            return (
                f"No token of this text of {counted(length, 'token')} meets a body: the first is "
                f"met after {counted(block * (exact + 2), 'token')}."
            )
        late = shares[:, -met:].mean(1).tolist()
        at = int(shares[2].argmax())
        return (
            f"In {name} the last {counted(met, 'token')} take {late[0]:.0%} of their weight from "
            f"the near field, {late[1]:.0%} from opened blocks and {late[2]:.0%} from bodies, the "
            f"most of it {named(labels, [at])} at position {at:,}, {float(shares[2, at]):.0%}."
        )

    return see


def _whole(title: str, count: int, *, reverse: bool = False) -> dict[str, object]:
    """An axis of blocks, with at most a dozen whole numbers."""
    return axis(title, reverse=reverse) | {"dtick": -(-count // 12), "zeroline": False}


def _means(shares: dict[str, Tensor]) -> Table:
    rows = [[name, *map(short, part.mean(1).tolist())] for name, part in shares.items()]
    columns = ["Layer", "Near field", "Opened blocks", "Bodies"]
    return Table("Mean shares of the weight", columns, rows)
