"""ngt's pages: attraction between tokens, masses, and the coordinates of the particles.

Weights are recomputed from a snapshot of each layer; training and decoding never hold them.
Legend: T tokens, H heads, d coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holo_cli.models.figures import axis, short
from holo_cli.models.views import Coordinates, Picture, Table, Weights, layer_names

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.ngt.diagnostics import Snapshot
    from holo_cli.models.ngt.mixer import GravityMixer

PAGES = {
    "attention": "which earlier tokens attract each token, head by head",
    "gravity": "attraction between tokens, their masses, and how weight falls with distance",
}
LIVE = {"attention": (), "gravity": ("Masses",)}
BY_TOKENS = (
    "Gravity: each token spreads a weight of 1 over itself and the tokens before it, by "
    "their masses and their distances, and takes that mixture of their values."
)
BY_BLOCKS = (
    "Gravity: each token spreads a weight of 1 over itself and the tokens before it, by "
    "their masses and their distances; tokens of a far block share the weight of its body."
)
CURVE = 60  # points of the curve of weight against distance


def coordinates(model: LanguageModel, tokens: Tensor) -> Coordinates:
    """(T,) int64 -> the key points of all heads, (T, H d) per layer, and mean masses."""
    layers = _snapshots(model, tokens)
    return Coordinates(
        layers=[layer.particles.k[0].transpose(0, 1).flatten(1) for layer in layers],
        names=layer_names(len(layers))[1:],
        what="The key points of each token, which attract the tokens after it, all heads side by "
        "side, rotated by position as for distances; its mass is the mean over heads.",
        mass=[layer.masses[0].mean(1) for layer in layers],
    )


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> the weights (H, T, T) of each layer."""
    layers = _snapshots(model, tokens)
    return Weights(
        layers=[layer.weights[0] for layer in layers],
        names=layer_names(len(layers))[1:],
        what=BY_BLOCKS if getattr(model.config, "far_field", "exact") == "blocks" else BY_TOKENS,
    )


def gravity(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """(T,) int64 -> attraction, masses, and weight against distance in each layer."""
    from holo_cli.models.ngt.diagnostics import gravity_mixers
    from holo_cli.models.ngt.model import Model

    assert isinstance(model, Model)
    layers, mixers = _snapshots(model, tokens), gravity_mixers(model)
    names = layer_names(len(mixers))[1:]
    return [_pulls(layers, names), _masses(layers, names), _laws(mixers, layers, names)]


def _snapshots(model: LanguageModel, tokens: Tensor) -> list[Snapshot]:
    from holo_cli.models.ngt.diagnostics import snapshots
    from holo_cli.models.ngt.model import Model

    assert isinstance(model, Model)
    return snapshots(model, tokens[None])


def _pulls(layers: list[Snapshot], names: list[str]) -> Picture:
    """A map per layer of the weights, mean over heads, and the strongest one of each token."""
    variants, tables = {}, []
    for name, layer in zip(names, layers, strict=True):
        mean = layer.weights[0].double().mean(0)
        rows = [row[: t + 1] for t, row in enumerate(mean.tolist())]
        variants[name] = [
            {
                "type": "heatmap",
                "z": [[short(w**0.5) for w in row] + [None] * (len(mean) - len(row))
                      for row in rows],
                "text": [[f"token {t} is attracted by {s} with weight {w:.3g}"
                          for s, w in enumerate(row)] for t, row in enumerate(rows)],
                "hovertemplate": "%{text}<extra></extra>",
                "showscale": False,
                "colorscale": "Viridis",
            }
        ]  # fmt: skip
        best = mean.tril(-1).max(1)
        distances = layer.squared[0].double().sqrt().mean(0)
        tables.append(
            Table(
                f"{name}: the strongest attraction of each token, other than by itself",
                ["Token", "Attracted by", "Weight", "Distance", "Weight on itself"],
                [
                    [t, s, short(w), short(distances[t, s].item()), short(mean[t, t].item())]
                    for t, (s, w) in enumerate(
                        zip(best.indices.tolist(), best.values.tolist(), strict=True)
                    )
                    if t
                ],
            )
        )
    return Picture(
        title="Attraction between tokens",
        note="A row is a token that is attracted, a column one that attracts; weights are means "
        "over heads, and colour follows their square root.",
        variants=variants,
        layout={
            "xaxis": axis("token that attracts"),
            "yaxis": axis("token that is attracted", reverse=True),
        },
        choice="Layer",
        tables=tables,
        token_axes=("xaxis", "yaxis"),
    )


def _masses(layers: list[Snapshot], names: list[str]) -> Picture:
    """The mass of each token, per layer: mean over heads with the lightest and the heaviest."""
    variants, tables = {}, []
    for name, layer in zip(names, layers, strict=True):
        masses = layer.masses[0].double()  # (T, H)
        mean = [short(m) for m in masses.mean(1).tolist()]
        low, high = masses.amin(1).tolist(), masses.amax(1).tolist()
        bars: dict[str, Any] = {
            "type": "bar",
            "name": "mean over heads",
            "tint": 0,
            "x": list(range(len(mean))),
            "y": mean,
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [short(h - m) for h, m in zip(high, mean, strict=True)],
                "arrayminus": [short(m - b) for b, m in zip(low, mean, strict=True)],
            },
        }
        variants[name] = [bars]
        rows = [
            [t, m, short(a), short(b)]
            for t, (m, a, b) in enumerate(zip(mean, low, high, strict=True))
        ]
        tables.append(
            Table(f"{name}: masses", ["Token", "Mean", "Lightest head", "Heaviest head"], rows)
        )
    return Picture(
        title="Masses",
        note="A token's mass, mean over heads; the whiskers span the lightest and the "
        "heaviest head. Only ratios within one head matter unless masses are in the values.",
        variants=variants,
        layout={
            "xaxis": axis("token"),
            "yaxis": axis("mass") | {"rangemode": "tozero"},
        },
        choice="Layer",
        tables=tables,
        token_axes=("xaxis",),
    )


def _laws(mixers: list[GravityMixer], layers: list[Snapshot], names: list[str]) -> Picture:
    """Weight of a token of mass 1 against its distance, per head, as a share of that at zero."""
    import torch

    variants, tables = {}, []
    for name, mixer, layer in zip(names, mixers, layers, strict=True):
        kernel, cutoff = mixer.kernel, mixer.radius_cutoff
        far = layer.squared.max().sqrt().item()
        distance = torch.linspace(0, far, CURVE, device=layer.squared.device)
        squared = distance.square().to(layer.squared.dtype)[None, None, None]
        squared = squared.expand(1, mixer.heads, 1, -1)
        ones = squared.new_ones(1, mixer.heads, 1, 1)
        score = kernel.score(squared, ones, torch.zeros_like(squared).mT)
        if cutoff is not None:
            # one more key, the token itself, which a radius leaves alone
            room = torch.nn.functional.pad
            score = cutoff.limit(room(score, (0, 1)), room(squared, (0, 1)))[..., :-1]
        share = (score - score.amax(-1, keepdim=True)).exp()[0, :, 0].tolist()
        variants[name] = [
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"head {h}",
                "tint": h - 1,
                "x": [short(x) for x in distance.tolist()],
                "y": [short(y) for y in curve],
            }
            for h, curve in enumerate(share, start=1)
        ]
        figures = {key: value.tolist() for key, value in kernel.figures().items()}
        if cutoff is not None:
            figures["radius"] = cutoff.radius.abs().tolist()
        tables.append(
            Table(
                f"{name}: what each head has learned",
                ["Head", *figures],
                [
                    [h, *(short(values[h - 1]) for values in figures.values())]
                    for h in range(1, mixer.heads + 1)
                ],
            )
        )
    return Picture(
        title="How weight falls with distance",
        note="Weight of a token of mass 1 against its distance, relative to the largest, with "
        "the radius where one is set; up to the largest distance in this text.",
        variants=variants,
        layout={
            "xaxis": axis("distance"),
            "yaxis": axis("weight") | {"rangemode": "tozero"},
        },
        choice="Layer",
        tables=tables,
    )
