"""The weights of every layer and head, for models that have weights to show.

Only the lower triangle travels: nothing looks ahead. Legend: H heads, T tokens.
"""

from __future__ import annotations

import math

from holo_cli.models.views import Table, Weights
from holo_cli.visualize.model_reading import Reading
from holo_cli.visualize.page import Section, number

NUMBERS = 50_000  # on one page, which keeps it below 6 MB beside plotly.js
DECIMALS = 3
MOST_TOKENS = 96  # more rows than that cannot be read


def most_tokens(maps: int) -> int:
    """How many tokens a page of so many layers times heads can show."""
    return max(16, min(MOST_TOKENS, math.isqrt(2 * NUMBERS // maps)))


def attention_section(weights: Weights, reading: Reading) -> Section:
    """The figure and its tables, one per layer and head."""
    maps = [[_triangle(head) for head in layer.tolist()] for layer in weights.layers]
    data = {
        "layers": list(weights.names),
        **reading.data(),
        "weights": maps,
    }
    tables = [
        _table(f"{name}, head {h}", head, reading)
        for name, layer in zip(weights.names, maps, strict=True)
        for h, head in enumerate(layer, start=1)
    ]
    note = (
        f"{weights.what} Choose a layer and a head; a row of the map is a query "
        "token, a column a key token. Colour follows the square root of the weight, so that small "
        f"weights show. Weights are rounded to {DECIMALS} decimals."
    )
    return Section("Attention weights", note, "attention", data, tables)


def _triangle(head: list[list[float]]) -> list[list[float]]:
    return [[round(w, DECIMALS) for w in row[: t + 1]] for t, row in enumerate(head)]


def _table(caption: str, head: list[list[float]], reading: Reading) -> Table:
    columns = ["Position", "Token", "Weights on tokens 0, 1, 2 and so on, up to itself"]
    rows = [
        [t, piece, " ".join(map(number, row))]
        for t, (piece, row) in enumerate(zip(reading.labels, head, strict=True))
    ]
    return Table(caption, columns, rows)
