"""The weights of every layer and head, for models that have weights to show.

Only the lower triangle travels: nothing looks ahead. Legend: H heads, T tokens.
"""

from __future__ import annotations

import math

from holo_cli.models.figures import named
from holo_cli.models.views import Table, Weights
from holo_cli.visualize.model_reading import SPECIAL, Reading
from holo_cli.visualize.page import Section, number

NUMBERS = 50_000  # on one page, which keeps it below 6 MB beside plotly.js
DECIMALS = 3
LITTLE = 0.03  # of the weight above an even share: less is no choice
MOST_TOKENS = 96  # more rows than that cannot be read


def most_tokens(maps: int) -> int:
    """How many tokens a page of so many layers times heads can show."""
    return max(16, min(MOST_TOKENS, math.isqrt(2 * NUMBERS // maps)))


def attention_section(weights: Weights, reading: Reading) -> Section:
    """The figure and its tables, one per layer and head."""
    maps = [[_triangle(head) for head in layer.tolist()] for layer in weights.layers]
    sentence, opens = selective_head(weights, reading)
    data = {
        "layers": list(weights.names),
        **reading.data(),
        "weights": maps,
        "opens": weights.opens or opens,
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
    see = weights.see(reading.in_words) if weights.see else sentence
    return Section(weights.title, note, "attention", data, tables, see=see)


def selective_head(weights: Weights, reading: Reading) -> tuple[str, tuple[int, int, int]]:
    """A sentence on the head that takes most from single earlier tokens, and its (layer, head,
    token), of which the token is the one that takes the largest share from one.

    Special tokens and the beginning of the text do not count as tokens that are taken from: heads
    with nothing to do put their weight there. Neither does the token itself.
    """
    import torch

    languages = reading.languages or [""] * len(reading.ids)
    count = len(reading.ids)
    ordinary = torch.tensor([at > 0 and code != SPECIAL for at, code in enumerate(languages)])
    allowed = torch.ones(count, count, dtype=torch.bool).tril(-1) & ordinary
    rows = (allowed.any(1) & ordinary).nonzero()[:, 0]
    heads = weights.layers[0].shape[0]
    if not len(rows):
        return "The text is too short for a token to take from earlier ones.", (0, -1, count - 1)
    stacked = torch.stack([layer.double().cpu() for layer in weights.layers])  # (L, H, T, T)
    best = stacked.masked_fill(~allowed, 0)[:, :, rows].max(-1)
    above = best.values - 1 / (rows + 1)  # an even spread gives each of t + 1 tokens its share
    at = int(above.mean(-1).argmax())
    layer, head = divmod(at, heads)
    if float(above.mean(-1)[layer, head]) < LITTLE:
        even = (
            "No head takes much more from one earlier token than from another, as in a model that "
            "was hardly trained."
        )
        return even, (layer, head, int(rows[-1]))
    share = float(best.values[layer, head].mean())
    before = float((best.indices[layer, head] == rows - 1).double().mean())
    row = int(above[layer, head].argmax())
    taker, source = int(rows[row]), int(best.indices[layer, head, row])
    weight = float(best.values[layer, head, row])
    number, name = head + 1, weights.names[layer]
    where = f"Head {number} of {name}" if heads > 1 else name
    sentence = (
        f"{where} is the most selective: it takes {share:.0%} on average from one earlier token, "
        f"the one just before in {before:.0%} of cases; {named(reading.in_words, [taker])} takes "
        f"{weight:.0%} from {named(reading.in_words, [source])}."
    )
    return sentence, (layer, head, taker)


def _triangle(head: list[list[float]]) -> list[list[float]]:
    return [[round(w, DECIMALS) for w in row[: t + 1]] for t, row in enumerate(head)]


def _table(caption: str, head: list[list[float]], reading: Reading) -> Table:
    columns = ["Position", "Token", "Weights on tokens 0, 1, 2 and so on, up to itself"]
    rows = [
        [t, piece, " ".join(map(number, row))]
        for t, (piece, row) in enumerate(zip(reading.labels, head, strict=True))
    ]
    return Table(caption, columns, rows)
