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

from holo_cli.models.views import Coordinates, Table
from holo_cli.visualize.model_reading import Reading
from holo_cli.visualize.page import Section, rounded

if TYPE_CHECKING:
    from torch import Tensor

AXES = 3
NUMBERS = 30_000  # on one page, which keeps it well below 6 MB beside plotly.js
MOST_TOKENS = 512


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
    data = {
        "layers": list(coordinates.names),
        **reading.data(),
        "points": points,
        "mass": mass,
        "explained": rounded(projection.explained),
    }
    tables = [
        _layer_table(name, at, reading, points, mass) for at, name in enumerate(coordinates.names)
    ]
    return Section("Tokens in space, layer by layer", note, "coords", data, tables)


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
