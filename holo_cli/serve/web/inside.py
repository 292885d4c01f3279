"""What a model does with a text, for the panel beside the conversation.

A model's `views.py` says by LIVE which of its figures are shown (`holo_cli/models/views.py`); the
figures themselves are those of `holo visualize`, reduced to plain numbers by token. A model without
a `views.py` shows how much each of its blocks changes each token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from holo_cli.errors import UsageError
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.models.figures import short
from holo_cli.models.views import Picture, Weights, layer_names, watched
from holo_cli.serve.refusal import Refusal
from holo_cli.translation import translate
from holo_cli.visualize.attention import most_tokens
from holo_cli.visualize.model_reading import Reading, token_groups
from holo_cli.visualize.pages import views_of
from holo_cli.visualize.tokens import with_tokens

FEWEST = 48  # tokens that are always shown, however many layers and heads there are
DECIMALS = 3
Shown = Weights | Picture
Figure = dict[str, Any]


def look_inside(loaded: LoadedModel, ids: Sequence[int], language: str) -> dict[str, Any]:
    """The end of a text of token ids as the model reads it, and figures of what it does with it.

    {"tokens": [str], "faces": [str], "shown": int, "whole": int, "figures": [figure]}, where a
    figure is {"kind": "map" or "rows", "title", "note", "axis", "signed", "variants": [{"name",
    "labels", "rows"}]}: of a map, row t has what token t takes from tokens 0..t; of rows, each row
    is what `axis` and its label say, and has one number a token. None stands for no number. Words
    are in `language`.
    Raises Refusal for a model that has nothing to show. To be called while nothing else computes.
    """
    config = loaded.config
    most = max(FEWEST, most_tokens(config.layers * config.heads))
    most = min(most, loaded.model.context_limit or most)
    tail = list(ids)[-most:]
    reading = Reading(tail, token_groups(loaded.tokenizer, tail), [], len(ids), [])
    tokens = torch.tensor(tail, device=loaded.model.device)
    with torch.inference_mode():
        shown = _live(loaded, tokens)
    figures = [_figure(each, reading) for each in shown]
    return {
        "tokens": reading.labels,
        "faces": reading.data()["faces"],
        "shown": len(tail),
        "whole": len(ids),
        "figures": [_said(figure, language) for figure in figures if figure is not None],
    }


def _live(loaded: LoadedModel, tokens: Tensor) -> list[Shown]:
    """The figures of the first pages in LIVE that the config has not switched off."""
    views = _views(loaded)
    live: Mapping[str, Sequence[str]] = getattr(views, "LIVE", {})
    found: list[Shown] = []
    for page, titles in live.items():
        try:
            made = getattr(views, page)(loaded.model, tokens)
        except UsageError:  # switched off by the config
            continue
        parts = [made] if isinstance(made, Weights) else made
        found += [p for p in parts if isinstance(p, Weights) or not titles or p.title in titles]
    return found or [_changes(loaded, tokens)]


def _views(loaded: LoadedModel) -> Any:
    try:
        return views_of(loaded.header.model)
    except UsageError:  # a model in a file that nothing here names
        return None


def _changes(loaded: LoadedModel, tokens: Tensor) -> Picture:
    """How much each block adds to a token's vector, relative to its length before."""
    blocks: Any = getattr(loaded.model, "blocks", None)
    if not blocks:
        raise Refusal(404, "This model has nothing to show inside.", code="no_inside_view")
    with watched(blocks) as calls:
        loaded.model.hidden(tokens[None])
    stream = [calls[0][0], *(result[0] for _, result in calls)]
    rows = [
        ((after - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-9))[0].tolist()
        for before, after in pairwise(stream)
    ]
    names = layer_names(len(rows))[1:]
    traces = [{"name": name, "y": row} for name, row in zip(names, rows, strict=True)]
    return Picture(
        "How much each block changes each token",
        "Length of what a block adds to a token's vector, relative to the vector before it.",
        {"all blocks": traces},
        token_axes=("xaxis",),
    )


def _figure(shown: Shown, reading: Reading) -> Figure | None:
    """A figure by token; None for one that is drawn against something else."""
    if isinstance(shown, Weights):
        variants = [
            {"name": name, "labels": [], "rows": _triangle(layer)}
            for name, layer in zip(shown.names, shown.layers, strict=True)
        ]
        note = f"{shown.what} Means over heads."
        return _made("map", "What each token takes from earlier ones", note, False, variants)
    if "xaxis" not in shown.token_axes:
        return None
    kind = "map" if "yaxis" in shown.token_axes else "rows"
    signed, axis, variants = False, "", []
    for name, traces in with_tokens(shown, reading.labels).variants.items():
        heats = [trace for trace in traces if trace.get("type") == "heatmap"]
        if heats:
            signed = heats[0].get("scale") == "signed"
            rows = [[_number(v) for v in row] for row in heats[0]["z"]]
            labels = [str(i) for i in range(len(rows))] if kind == "rows" else []
            axis = str(shown.layout.get("yaxis", {}).get("title", {}).get("text", ""))
        else:
            whole = [trace for trace in traces if len(trace["y"]) == len(reading.ids)]
            rows = [[_number(v) for v in trace["y"]] for trace in whole]
            labels = [str(trace["name"]) for trace in whole]
        if kind == "map":
            rows = [row[: t + 1] for t, row in enumerate(rows)]
        signed = signed or any(v is not None and v < 0 for row in rows for v in row)
        variants.append({"name": name, "labels": labels, "rows": rows})
    return _made(kind, shown.title, shown.note, signed, variants) | {"axis": axis}


def _made(kind: str, title: str, note: str, signed: bool, variants: list[Any]) -> Figure:
    return {
        "kind": kind,
        "title": title,
        "note": note,
        "axis": "",
        "signed": signed,
        "variants": variants,
    }


def _triangle(layer: Tensor) -> list[list[float]]:
    """(H, T, T) -> the lower triangle of the mean over heads."""
    mean = layer.float().mean(0).tolist()
    return [[round(w, DECIMALS) for w in row[: t + 1]] for t, row in enumerate(mean)]


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else short(value)


def _said(figure: Figure, language: str) -> Figure:
    """The figure with its words in a language."""
    variants = [
        variant
        | {
            "name": translate(variant["name"], language),
            "labels": [translate(label, language) for label in variant["labels"]],
        }
        for variant in figure["variants"]
    ]
    words = {key: translate(figure[key], language) for key in ("title", "note", "axis")}
    return figure | words | {"variants": variants}
