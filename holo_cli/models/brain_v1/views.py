"""brain-v1's pages: which columns fire for which tokens, where tokens exit, attention weights.

One forward pass over the text records the input of each part; what the pass does not keep (the
columns chosen, the outputs of units) is recomputed from it.
Legend: T tokens, N = B T, G columns, U hidden units, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holo_cli.models.brain_v1.depth_view import depth
from holo_cli.models.figures import axis, bar, heat, line, named, short
from holo_cli.models.views import Picture, See, Table, Tokens, Weights, layer_names
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.brain_v1.columns import Columns
    from holo_cli.models.brain_v1.model import Model

__all__ = ["PAGES", "attention", "columns", "depth"]

PAGES = {
    "columns": "which columns fire for which tokens, and how many units of each layer do",
    "depth": "after which layer each token is confident enough to exit",
    "attention": "which earlier tokens each token looks at",
}
LIVE = {"columns": ("Which columns fire for which tokens",)}
TYPICAL = 12  # tokens named per column


# -- columns --------------------------------------------------------------------------------------


def columns(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """The output of each column for each token, and the measured activity; (T,) int64 tokens."""
    from holo_cli.models.brain_v1.columns import Columns
    from holo_cli.models.brain_v1.diagnostics import feeding

    sends, rows, tables, energies, routed = {}, [], [], {}, {}
    for name, (part, x) in zip(_names(model), feeding(_brain(model), tokens[None]), strict=True):
        sent, could = part.unit_outputs(x)
        energy = sent.float().unflatten(1, (part.columns, -1)).square().mean(2).sqrt()  # (T, G)
        energies[name] = energy
        if isinstance(part, Columns) and part.kept < part.columns:
            routed[name] = selection(part, x)
        sends[name] = [heat(energy.T, "column %{y}, position %{x}: %{z}")]
        firing = (sent != 0).float().mean(1)  # (T,)
        rows.append(
            [name, short(could.float().mean().item()), short(firing.mean().item()),
             short(firing.min().item()), short(firing.max().item())]
        )  # fmt: skip
        tables.append(_typical(name, energy))
    activity = Table(
        "Measured activity",
        ["Layer", "Units that may fire", "Units that do, mean", "least", "most"],
        rows,
    )
    names = [str(row[0]) for row in rows]
    best = min(energies, key=lambda name: overlap(energies[name]))
    return [
        Picture(
            "Which columns fire for which tokens",
            "Output of each column for each token: the root mean square over its units. The "
            "background colour is zero.",
            sends,
            {"xaxis": axis("token"), "yaxis": axis("column")},
            choice="Layer",
            opens=best,
            see=_see(best, energies[best], float(str(rows[names.index(best)][2]))),
            tables=tables,
            token_axes=("xaxis",),
        ),
        *([_selection(routed, best)] if routed else []),
        Picture(
            "How many units fire",
            "The share of a layer's hidden units that may fire for a token, and of those that do, "
            "counted on this text.",
            {
                "all layers": [
                    bar("may fire", names, [r[1] for r in rows], 0),
                    bar("fire", names, [r[2] for r in rows], 1),
                ]
            },
            {"barmode": "group", "yaxis": axis("share of the units")},
            tables=[activity],
        ),
    ]  # fmt: skip


def overlap(energy: Tensor) -> float:
    """Outputs of columns (T, G) -> the mean cosine between those of two tokens: 1 where all tokens
    use the same columns, near 0 where each has its own."""
    import torch

    unit = torch.nn.functional.normalize(energy.double(), dim=1)
    count = len(unit)
    total = (unit @ unit.T).sum() - unit.square().sum()
    return float(total / max(1, count * (count - 1)))


def _see(name: str, energy: Tensor, fires: float) -> See:
    """On the layer `name`, and its column that singles out tokens the most: fires for some of them,
    strongest against its own mean."""
    fired = (energy > 0).sum(0)
    mean = energy.mean(0)
    several = (fired >= min(3, len(energy))) & (mean > 0)
    peak = (energy.amax(0) / mean.clamp_min(1e-12)).masked_fill(~several, 0)
    column = int(peak.argmax())
    order = energy[:, column].argsort(descending=True).tolist()

    def see(labels: Sequence[str]) -> str:
        if not several.any():
            return (
                f"{fires:.1%} of the units of {name} fire; the text is too short for a column to "
                "fire for several tokens."
            )
        return (
            f"In {name} tokens share the fewest columns: {overlap(energy):.0%} of their outputs "
            f"agree, {fires:.1%} of the units fire, and column {column} fires for "
            f"{counted(int(fired[column]), 'token')}, strongest for {named(labels, order)}."
        )

    return see


def selection(part: Columns, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The columns' scores for (T, C) tokens: of the last column kept and the first one left out,
    (T,) each, and the share of tokens that keep each column, (G,)."""
    import torch

    score, chosen = part.scores(x)[1].float(), part.route(x)[1]
    kept = torch.zeros_like(score, dtype=torch.bool).scatter(1, chosen, True)
    lowest = score.masked_fill(~kept, float("inf")).amin(1)
    highest = score.masked_fill(kept, float("-inf")).amax(1)
    return lowest, highest, kept.float().mean(0)


def _selection(routed: dict[str, tuple[Tensor, Tensor, Tensor]], best: str) -> Picture:
    rows, traces = [], {}
    for name, (lowest, highest, share) in routed.items():
        positions = range(len(lowest))
        traces[name] = [
            line("last column kept", positions, lowest, 0),
            line("first column left out", positions, highest, 1),
        ]
        rows.append(
            [name, short((lowest - highest).mean().item()), short(share.max().item()),
             short(share.min().item()), int((share == 0).sum())]
        )  # fmt: skip
    columns = ["Layer", "Mean gap", "Share of the busiest column", "of the idlest", "Never chosen"]
    return Picture(
        "How clear the choice of columns is",
        "The score, with the balancing bias, of the last column that is kept for a token and of "
        "the first one that is not. It is how loud a column's own units are, or what a router "
        "says. Where the lines touch, the choice is arbitrary.",
        traces,
        {"xaxis": axis("token"), "yaxis": axis("score")},
        choice="Layer",
        opens=best if best in routed else "",
        tables=[Table("The choice of columns", columns, rows)],
        token_axes=("xaxis",),
    )


def _typical(name: str, energy: Tensor) -> Table:
    """For each column the tokens with its largest output."""
    rows: list[list[object]] = []
    for column in range(energy.shape[1]):
        loud = energy[:, column]
        order = loud.argsort(descending=True).tolist()
        chosen = [t for t in order[:TYPICAL] if loud[t] > 0]
        share = short((loud > 0).float().mean().item())
        rows.append([column, share, Tokens(chosen)])
    columns = ["Column", "Share of the tokens", "Tokens with its largest output"]
    return Table(f"{name}: columns", columns, rows)


# -- attention ------------------------------------------------------------------------------------


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> softmax weights (H, T, T) of each layer; O(T^2) memory per layer."""
    from holo_cli.models.brain_v1.diagnostics import attention_weights

    layers = attention_weights(_brain(model), tokens[None])
    top = _brain(model).config.attention_top
    kept = "" if top == 1 else f" Only the largest {top:.0%} are kept, at evaluation."
    return Weights(
        layers=[weights[0] for weights in layers],
        names=layer_names(len(layers))[1:],
        what="Softmax attention: each token spreads a weight of 1 over itself and the tokens "
        "before it, and takes that mixture of their values." + kept,
    )


# -- small helpers --------------------------------------------------------------------------------


def _brain(model: LanguageModel) -> Model:
    from holo_cli.models.brain_v1.model import Model

    assert isinstance(model, Model)
    return model


def _names(model: LanguageModel) -> list[str]:
    return layer_names(model.config.layers)[1:]
