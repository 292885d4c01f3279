"""Small pieces that holographic's pages are drawn with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from holo_cli.models.views import watched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holo_cli.models.base import LanguageModel

Trace = dict[str, Any]


def caught(
    model: LanguageModel, tokens: Tensor, kind: type[nn.Module]
) -> list[tuple[str, Any, Tensor]]:
    """(block's name, part, its input) for each part of a kind, from one pass over the text."""
    blocks: Any = model.blocks
    parts = [
        (f"Block {i}", part)
        for i, block in enumerate(blocks, start=1)
        for part in block.children()
        if isinstance(part, kind)
    ]
    with watched([part for _, part in parts]) as calls:
        model.hidden(tokens[None])
    return [(name, part, x) for (name, part), (x, _) in zip(parts, calls, strict=True)]


def heat(values: Tensor) -> Trace:
    rows = [[None if v != v else short(v) for v in row] for row in values.tolist()]
    return {"type": "heatmap", "z": rows, "zmin": -1, "zmax": 1, "colorscale": "RdBu"}


def line(name: str, x: Iterable[float], y: Tensor, tint: int) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": plain(y),
        "tint": tint,
    }


def axis(title: str, *, log: bool = False, reverse: bool = False) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": title}}
    if log:
        axis["type"] = "log"
    if reverse:
        axis["autorange"] = "reversed"
    return axis


def plain(values: Tensor) -> Sequence[float]:
    return [short(v) for v in values.tolist()]


def short(value: float) -> float:
    return float(f"{value:.4g}")
