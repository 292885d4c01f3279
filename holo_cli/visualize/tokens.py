"""A picture's positions as tokens: models give positions, pages write the tokens there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holo_cli.models.views import Picture, Table, Tokens


def with_tokens(picture: Picture, labels: Sequence[str]) -> Picture:
    """The picture with `labels`, one a position, at its token axes and for every `Tokens`."""
    layout = dict(picture.layout)
    for axis in picture.token_axes:
        layout[axis] = {**_ticks(labels), **layout.get(axis, {})}
    variants = {
        name: [_named_trace(trace, labels) for trace in traces]
        for name, traces in picture.variants.items()
    }
    tables = tuple(_named_table(table, labels) for table in picture.tables)
    return replace(picture, variants=variants, layout=layout, tables=tables)


def _ticks(labels: Sequence[str]) -> dict[str, Any]:
    """Plotly reads markup in ticks; a token has none."""
    plain = [
        label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for label in labels
    ]
    return {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": plain,
        "automargin": True,
    }


def _named_trace(trace: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    made = dict(trace)
    if isinstance(made.get("text"), list):
        made["text"] = [_named(entry, labels) for entry in made["text"]]
    return made


def _named_table(table: Table, labels: Sequence[str]) -> Table:
    return replace(table, rows=[[_named(cell, labels) for cell in row] for row in table.rows])


def _named(value: object, labels: Sequence[str]) -> object:
    """A `Tokens` as text, each token once; anything else as it is."""
    if not isinstance(value, Tokens):
        return value
    return ", ".join(dict.fromkeys(labels[position] for position in value.positions))
