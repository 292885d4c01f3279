"""Tokens in three dimensions: one projection for all layers, so that movement is real.

The coordinates of all layers are pooled, centred once, and turned so that the three directions of
the largest spread are seen. That is one orthonormal map for every layer: a token that stays still
in the picture stays still in those directions, and with three coordinates all distances are kept.
Legend: L layers, T tokens, d coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holo_cli.models.figures import named
from holo_cli.models.views import Coordinates, Table
from holo_cli.translation import translate
from holo_cli.visualize.model_reading import SPECIAL, Reading
from holo_cli.visualize.page import Section, rounded

if TYPE_CHECKING:
    from torch import Tensor

AXES = 3
NUMBERS = 30_000  # on one page, which keeps it well below 6 MB beside plotly.js
MOST_TOKENS = 512
APART = 1.0  # below it a token is mostly nearer to its own centre than the centres to each other
LANGUAGE_NAMES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "pt": "Portuguese",
    "ru": "Russian",
    "zh": "Chinese",
}


def most_tokens(layers: int) -> int:
    """How many tokens a page of so many layers can show."""
    return max(16, min(MOST_TOKENS, NUMBERS // (AXES * layers)))


@dataclass(frozen=True)
class Projection:
    """Principal components of all layers together."""

    points: Tensor  # (L, T, 3) float64: basis applied to what was centred
    basis: Tensor  # (3, d), orthonormal rows; rows of zeros where d < 3
    centre: Tensor  # (d,)
    explained: list[float]  # share of the variance along each axis, descending


def project(layers: Sequence[Tensor]) -> Projection:
    """Coordinates (T, d) per layer -> their projection on three axes that all layers share."""
    import torch

    pooled = torch.stack([x.detach().to("cpu", torch.float64) for x in layers])  # (L, T, d)
    flat = pooled.flatten(0, 1)
    centre = flat.mean(0)
    _, singular, right = torch.linalg.svd(flat - centre, full_matrices=False)
    basis = flat.new_zeros(AXES, flat.shape[1])
    basis[: len(right)] = right[:AXES]
    # a direction and its opposite are equally principal: let the largest entry be positive
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    basis = basis * torch.where(largest < 0, -1.0, 1.0)
    variance = singular.square()
    share = variance / variance.sum().clamp_min(torch.finfo(torch.float64).tiny)
    explained = [float(x) for x in share[:AXES]] + [0.0] * (AXES - len(share))
    return Projection((pooled - centre) @ basis.T, basis, centre, explained)


def coords_section(coordinates: Coordinates, reading: Reading) -> Section:
    """The figure and its tables, one per layer."""
    projection = project(coordinates.layers)
    points = rounded(projection.points.tolist())
    mass = (
        None
        if coordinates.mass is None
        else rounded([m.detach().double().cpu().tolist() for m in coordinates.mass])
    )
    shares = " + ".join(f"{share:.1%}" for share in projection.explained)
    kept = sum(projection.explained)
    dimensions = coordinates.layers[0].shape[1]
    note = (
        f"{coordinates.what} One principal-component basis serves all layers: move the slider and "
        f"what moves has moved. The three axes show {shares} = {kept:.1%} of the variance of "
        f"{dimensions} dimensions."
    )
    sentence, opens = striking_layer(projection.points, coordinates, reading)
    data = {
        "layers": list(coordinates.names),
        "opens": opens,
        **reading.data(),
        "called": {code: translate(name) for code, name in LANGUAGE_NAMES.items()},
        "points": points,
        "mass": mass,
        "explained": rounded(projection.explained),
    }
    tables = [
        _layer_table(name, at, reading, points, mass) for at, name in enumerate(coordinates.names)
    ]
    return Section("Tokens in space, layer by layer", note, "coords", data, tables, see=sentence)


def striking_layer(points: Tensor, coordinates: Coordinates, reading: Reading) -> tuple[str, int]:
    """A sentence on what there is to see in the points (L, T, 3), and the layer that shows it.

    With two languages it is the layer in which they are farthest apart, as the distance of their
    centres over the mean distance of a token from its centre; else the layer into which tokens
    move farthest.
    """
    import torch

    names, labels = list(coordinates.names), reading.in_words
    codes = [code for code in dict.fromkeys(reading.languages) if code not in ("", SPECIAL)]
    members = {
        code: torch.tensor([at for at, own in enumerate(reading.languages) if own == code])
        for code in codes
    }
    members = {code: at for code, at in members.items() if len(at) > 1}
    if len(members) > 1:
        first, second = sorted(members, key=lambda code: -len(members[code]))[:2]
        apart = [_separation(layer[members[first]], layer[members[second]]) for layer in points]
        best = max(range(len(apart)), key=apart.__getitem__)
        degree = "farthest apart" if apart[best] >= APART else "farthest apart, yet mixed"
        sentence = (
            f"{names[best]} is where {LANGUAGE_NAMES.get(first, first)} and "
            f"{LANGUAGE_NAMES.get(second, second)} are {degree}: their centres are "
            f"{apart[best]:.1f} times as far from each other as a token is from its own."
        )
        return sentence, best
    if len(points) == 1:
        far = points[0].norm(dim=1).argmax().item()
        return f"{named(labels, [int(far)])} is farthest from the centre of all tokens.", 0
    moved = (points[1:] - points[:-1]).norm(dim=2)  # (L - 1, T)
    best = int(moved.mean(1).argmax()) + 1
    farthest = int(moved[best - 1].argmax())
    sentence = (
        f"Tokens move farthest from {names[best - 1]} to {names[best]}, and "
        f"{named(labels, [farthest])} most of all: "
        f"{moved[best - 1, farthest] / moved[best - 1].mean().clamp_min(1e-12):.1f} times as far "
        "as the mean."
    )
    return sentence, best


def _separation(a: Tensor, b: Tensor) -> float:
    """Points (N, 3) and (M, 3): the distance of their centres, relative to their spread."""
    centres = a.mean(0), b.mean(0)
    spread = ((a - centres[0]).norm(dim=1).mean() + (b - centres[1]).norm(dim=1).mean()) / 2
    return float((centres[0] - centres[1]).norm() / spread.clamp_min(1e-12))


def _layer_table(
    name: str,
    layer: int,
    reading: Reading,
    points: list[list[list[float]]],
    mass: list[list[float]] | None,
) -> Table:
    columns = ["Position", "Token", "Language", "Axis 1", "Axis 2", "Axis 3"]
    rows: list[list[object]] = [
        [position, piece, language, *point]
        for position, (piece, language, point) in enumerate(
            zip(reading.labels, reading.languages, points[layer], strict=True)
        )
    ]
    if mass is not None:
        columns.append("Mass")
        for row, m in zip(rows, mass[layer], strict=True):
            row.append(m)
    return Table(name, columns, rows)
