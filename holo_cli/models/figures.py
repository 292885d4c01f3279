"""Small pieces that the models' pages are drawn with, in Plotly's own terms.

They are here and not in `visualize/`, because a model's `views.py` may import nothing of a stage
after the models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from holo_cli.models.views import watched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holo_cli.models.base import LanguageModel

Trace = dict[str, Any]
P = TypeVar("P", bound="nn.Module")


def caught(model: LanguageModel, tokens: Tensor, kind: type[P]) -> list[tuple[str, P, Tensor]]:
    """(block's name, part, its input) for each part of a kind, from one pass over (T,) tokens."""
    blocks: Any = model.blocks
    parts = [
        (f"Block {i}", part)
        for i, block in enumerate(blocks, start=1)
        for part in block.modules()
        if isinstance(part, kind)
    ]
    with watched([part for _, part in parts]) as calls:
        model.hidden(tokens[None])
    return [(name, part, x) for (name, part), (x, _) in zip(parts, calls, strict=True)]


def heat(values: Tensor, hover: str = "", *, signed: bool = False) -> Trace:
    """A heatmap of (R, K) values, NaN left blank: from 0 up, or `signed` from -1 to 1."""
    rows = [[None if v != v else short(v) for v in row] for row in values.tolist()]
    bounds = (
        {"zmin": -1, "zmax": 1, "scale": "signed"} if signed else {"zmin": 0, "scale": "amount"}
    )
    shown = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {}
    return {"type": "heatmap", "z": rows, **bounds, **shown}


def line(name: str, x: Iterable[float], y: Tensor, tint: int, mode: str = "lines+markers") -> Trace:
    points = {"x": list(x), "y": plain(y)}
    return {"type": "scatter", "mode": mode, "name": name, **points, "tint": tint}


def bar(name: str, x: Iterable[Any], y: list[Any], tint: int) -> Trace:
    return {"type": "bar", "name": name, "x": list(x), "y": y, "tint": tint}


def axis(title: str, *, log: bool = False, reverse: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"title": {"text": title}}
    if log:
        found["type"] = "log"
    if reverse:
        found["autorange"] = "reversed"
    return found


def plain(values: Tensor) -> list[float]:
    return [short(v) for v in values.tolist()]


def short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
