"""Small pieces that the models' pages are drawn with, in Plotly's own terms.

They are here and not in `visualize/`, because a model's `views.py` may import nothing of a stage
after the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


SCALES: dict[str, Trace] = {
    "amount": {"zmin": 0},
    "signed": {"zmin": -1, "zmax": 1},
    "weight": {"zmin": 0, "zmax": 1},
}


def heat(values: Tensor, hover: str = "", *, scale: str = "amount") -> Trace:
    """A heatmap of (R, K) values, NaN left blank. The scale "amount" is from 0 up, "signed" from
    -1 to 1, "weight" from 0 to 1 with colours that follow the square root."""
    rows = [[None if v != v else short(v) for v in row] for row in values.tolist()]
    bounds = {**SCALES[scale], "scale": scale}
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


def named(labels: Sequence[str], positions: Iterable[int], most: int = 3) -> str:
    """Up to `most` different tokens at these positions, in quotes; special ones only where there is
    no other.

    >>> named(["<|en|>", "a", "b", "a"], [0, 1, 3, 2])
    "'a', 'b'"
    """
    found = list(dict.fromkeys(labels[position] for position in positions))
    words = [label for label in found if not label.startswith("<|")] or found
    return ", ".join(f"'{label}'" for label in words[:most])
