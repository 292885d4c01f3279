"""The page `experts`: which category each token of the text falls into.

Legend: T tokens, C width, E categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holo_cli.errors import UsageError
from holo_cli.models.figures import Trace, axis, bar, caught, named, plain, short
from holo_cli.models.views import Picture, See, Table, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.holographic.experts import Experts

TYPICAL = 12  # tokens named per category
NAMED = 96  # tokens at most that have their names beside their points


def experts(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Affinities, and where the categories are among the tokens; (T,) int64 tokens."""
    from holo_cli.models.holographic.experts import Experts

    found = caught(model, tokens, Experts)
    if not found:
        raise UsageError(
            "This model has no category experts (model.experts is 1).",
            next_step="Train with --set model.experts=3.",
        )
    affinity, plane, tables, clear = {}, {}, [], {}
    for name, part, x in found:
        shares, chosen = part.route(x[0])
        clear[name] = shares, chosen[:, 0]
        affinity[name] = [
            bar(f"category {j + 1}", range(len(shares)), plain(shares[:, j]), j)
            for j in range(part.experts)
        ]
        plane[name] = _plane(part, x[0], chosen[:, 0])
        tables.append(_categories(name, part, shares, chosen))
    best = max(clear, key=lambda name: float(clear[name][0].amax(1).mean()))
    return [
        Picture(
            "Which category each token falls into",
            "The affinity of each token to each category; they sum to 1. A token goes through the "
            "experts of the highest, after a small correction that keeps experts equally busy.",
            affinity,
            {"barmode": "stack", "bargap": 0.1, "yaxis": axis("affinity")},
            choice="Block",
            opens=best,
            see=_see(best, *clear[best]),
            tables=tables,
            token_axes=("xaxis",),
        ),
        Picture(
            "Categories among tokens",
            "Tokens as the router of the block sees them, and the vectors of the categories "
            "(crosses), on the two directions in which the categories differ most.",
            plane,
            {"xaxis": axis("first direction"), "yaxis": axis("second direction")},
            choice="Block",
            opens=best,
        ),
    ]


def _see(name: str, shares: Tensor, chosen: Tensor) -> See:
    """shares (T, E), the category of each token (T,): the largest categories by their tokens."""
    count = shares.shape[1]
    sizes = chosen.bincount(minlength=count).tolist()
    largest = sorted(range(count), key=lambda j: -sizes[j])[:2]
    typical = {
        j: [t for t in shares[:, j].argsort(descending=True).tolist() if chosen[t] == j]
        for j in largest
        if sizes[j]
    }

    sure = float(shares.amax(1).mean())

    def see(labels: Sequence[str]) -> str:
        found = []
        for j, tokens in typical.items():
            number, share = j + 1, sizes[j] / len(chosen)
            such = named(labels, tokens)
            found.append(f"category {number} takes {share:.0%} of the tokens, such as {such}")
        first, *rest = found
        if not rest:
            return f"In {name} all tokens fall into one category: {first}."
        return (
            f"{name} separates tokens the most, with a mean affinity of {sure:.2f}: {first}; "
            f"{rest[0]}."
        )

    return see


def _plane(part: Experts, x: Tensor, chosen: Tensor) -> list[Trace]:
    """Tokens (T, C) by the category chosen, (T,), and the categories, on two directions."""
    import torch

    category = part.category.weight.to(x.dtype)
    centre = category.mean(0)
    if part.experts > 2:
        directions = torch.linalg.svd((category - centre).float(), full_matrices=False).Vh[:2]
    else:  # two categories differ in one direction only
        line = torch.nn.functional.normalize((category[0] - category[1]).float(), dim=0)
        rest = x.float() - (x.float() @ line)[:, None] * line
        other = torch.linalg.svd(rest - rest.mean(0), full_matrices=False).Vh[0]
        directions = torch.stack((line, other))
    dots, crosses = x.float() @ directions.T, category.float() @ directions.T
    traces: list[Trace] = []
    for j in range(part.experts):
        members = [t for t, c in enumerate(chosen.tolist()) if c == j]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if len(x) <= NAMED else "markers",
                "textposition": "top center",
                "textfont": {"size": 10},
                "name": f"category {j + 1}",
                "x": plain(dots[members, 0]),
                "y": plain(dots[members, 1]),
                "text": [Tokens([t]) for t in members],
                "hoverinfo": "text+name",
                "tint": j,
            }
        )
    for j in range(part.experts):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"vector of category {j + 1}",
                "x": plain(crosses[j : j + 1, 0]),
                "y": plain(crosses[j : j + 1, 1]),
                "marker": {"symbol": "x", "size": 12},
                "tint": j,
            }
        )
    return traces


def _categories(name: str, part: Experts, shares: Tensor, chosen: Tensor) -> Table:
    rows: list[list[object]] = []
    for j in range(part.experts):
        belongs = (chosen == j).any(1)
        order = shares[:, j].argsort(descending=True).tolist()
        typical = [t for t in order if bool(belongs[t])][:TYPICAL]
        share = short(belongs.float().mean().item())
        rows.append([j + 1, share, Tokens(typical)])
    columns = ["Category", "Share of the tokens", "Its most typical tokens"]
    return Table(f"{name}: categories", columns, rows)
