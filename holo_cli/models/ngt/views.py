"""ngt's pages: attraction between tokens, masses, and the coordinates of the particles.

Weights are recomputed from a snapshot of each layer; training and decoding never hold them.
Legend: T tokens, H heads, d coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holo_cli.models.figures import axis, named, short
from holo_cli.models.ngt.far_view import far, length
from holo_cli.models.views import Coordinates, Picture, Table, Weights, layer_names

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.ngt.diagnostics import Snapshot
    from holo_cli.models.ngt.mixer import GravityMixer

__all__ = ["PAGES", "attention", "coordinates", "far", "gravity", "length"]

PAGES = {
    "attention": "which earlier tokens attract each token, head by head",
    "gravity": "attraction between tokens, their masses, and how weight falls with distance",
    "far": "which tokens attract one by one, and which as the body of a block",
}
LIVE = {"gravity": ("Masses",)}
BY_TOKENS = (
    "Gravity: each token spreads a weight of 1 over itself and the tokens before it, by "
    "their masses and their distances, and takes that mixture of their values."
)
BY_SENDING = (
    "Gravity: each token takes from itself and the tokens before it, by their distances and by "
    "their masses, which scale what they send; shown as shares of 1."
)
BY_BLOCKS = (
    "Gravity: each token spreads a weight of 1 over itself and the tokens before it, by "
    "their masses and their distances; tokens of a far block share the weight of its body."
)
LATER = 4  # tokens after one, before it is said to attract them
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
        layers=_shares(model, layers),
        names=layer_names(len(layers))[1:],
        what=_what(model),
    )


def _what(model: LanguageModel) -> str:
    if getattr(model.config, "far_field", "exact") == "blocks":
        return BY_BLOCKS
    return BY_SENDING if getattr(model.config, "mass_in_value", False) else BY_TOKENS


def _shares(model: LanguageModel, layers: Sequence[Snapshot]) -> list[Tensor]:
    """Of what each token takes, the share of each earlier one, (H, T, T) per layer: the weights,
    times the masses where these are in the values."""
    weights = [layer.weights[0] for layer in layers]
    if not getattr(model.config, "mass_in_value", False):
        return weights
    sent = [w * layer.masses[0].T[:, None] for w, layer in zip(weights, layers, strict=True)]
    return [one / one.sum(-1, keepdim=True) for one in sent]


def gravity(model: LanguageModel, tokens: Tensor) -> list[Weights | Picture]:
    """(T,) int64 -> attraction, masses, and weight against distance in each layer."""
    from holo_cli.models.ngt.diagnostics import gravity_mixers
    from holo_cli.models.ngt.model import Model

    assert isinstance(model, Model)
    layers, mixers = _snapshots(model, tokens), gravity_mixers(model)
    names = layer_names(len(mixers))[1:]
    weights = _shares(model, layers)
    at, source, times = strongest_source(weights)
    later = weights[at].mean(0)[source + 1 :, source]
    taker = source + 1 + int(later.argmax()) if len(later) else source
    mass = layers[at].masses[0].mean(1)  # (T,)
    share = float(mass[source] / mass.mean())

    def see(labels: Sequence[str]) -> str:
        return (
            f"In {names[at]}, {named(labels, [source])} attracts the tokens after it the most: "
            f"they take {times:.1f} times an even share from it, and its mass is {share:.2f} times "
            "the mean."
        )

    pulls = Weights(
        weights,
        names,
        _what(model),
        title="Attraction between tokens",
        see=see,
        opens=(at, -1, taker),
    )
    masses = _masses(layers, names, names[at])
    return [pulls, masses, _laws(mixers, layers, names, names[at])]


def strongest_source(weights: Sequence[Tensor]) -> tuple[int, int, float]:
    """Weights (H, T, T) per layer -> the layer and the token from which later tokens take the most,
    as a multiple of an even share, mean over heads and over at least `LATER` later tokens.

    The first token does not count: every softmax of a kind puts spare weight there.
    """
    import torch

    best = (0, 0, 1.0)
    found = 0.0
    for at, layer in enumerate(weights):
        mean = layer.double().mean(0)
        count = len(mean)
        even = torch.arange(1, count + 1, dtype=mean.dtype, device=mean.device)
        times = (mean * even[:, None]).tril(-1).sum(0)
        later = torch.arange(count - 1, -1, -1, dtype=mean.dtype, device=mean.device)
        share = times / later.clamp_min(1)
        share[later < min(LATER, max(1, count - 2))] = 0
        share[: min(1, count - 2) if count > 2 else 0] = 0
        top = int(share.argmax())
        if float(share[top]) > found:
            found = float(share[top])
            best = (at, top, found)
    return best


def _snapshots(model: LanguageModel, tokens: Tensor) -> list[Snapshot]:
    from holo_cli.models.ngt.diagnostics import snapshots
    from holo_cli.models.ngt.model import Model

    assert isinstance(model, Model)
    return snapshots(model, tokens[None])


def _masses(layers: list[Snapshot], names: list[str], opens: str) -> Picture:
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
        opens=opens,
        tables=tables,
        token_axes=("xaxis",),
    )


def _laws(
    mixers: list[GravityMixer], layers: list[Snapshot], names: list[str], opens: str
) -> Picture:
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
        opens=opens,
        tables=tables,
    )
