"""Curves and samples of runs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from holo_cli.models.figures import axis
from holo_cli.models.views import Picture, See, Table
from holo_cli.visualize.page import Section, picture_section, rounded
from holo_cli.visualize.runs import RunCurves, runs_story

MOST_POINTS = 1000  # of one curve; longer ones are thinned evenly, the last point kept
MOST_SAMPLES = 12  # of one run, evenly over its evaluations, the last one kept
AGAINST = {"steps": "step", "tokens": "tokens", "seconds of training": "seconds"}
LAYERED = re.compile(r"layer(?P<layer>\d+)/(?P<what>.+)|(?P<of>.+)_(?P<last>\d+)")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


def training_sections(runs: Sequence[RunCurves]) -> list[Section]:
    """The losses; bits per byte and every measure that models logged in one figure; the samples."""
    losses = _picture(
        "Loss",
        "Nats per token: thin lines are training batches, marked lines the full validation set.",
        {"Loss": [c for i, run in enumerate(runs) for c in _losses(i, run)]},
        see=lambda _: runs_story(runs),
    )
    logged = sorted({m for run in runs for e in run.evaluations for m in e.get("measures", {})})
    measures = {
        "Bits per byte": [_marked(i, run, "bpb", run.name) for i, run in enumerate(runs)],
        **{name: _measure(by_layer, runs) for name, by_layer in layered(logged).items()},
    }
    others = _picture(
        "What was measured at evaluations",
        "Bits per byte of the validation set are comparable between tokenizers, unlike the loss. "
        "The other measures are the model's own; where it has one of each layer, a line is a "
        "layer's.",
        measures,
    )
    sections = [picture_section(p) for p in (losses, others) if p is not None]
    sampled = [run for run in runs if any(map(_sample, run.evaluations))]
    return [*sections, *(_samples(sampled) if sampled else [])]


@dataclass(frozen=True)
class _Curve:
    name: str
    rows: list[tuple[dict[str, Any], float]]  # its row, and the value
    style: dict[str, Any]
    entry: str = ""  # of the legend, where several curves share one


def _losses(i: int, run: RunCurves) -> list[_Curve]:
    thin = {"mode": "lines", "line": {"width": 1, "dash": DASHES[i % len(DASHES)]}, "opacity": 0.6}
    train = _Curve(f"{run.name}, training", _values(run.train, "loss"), {**thin, "tint": i})
    marked = _marked(i, run, "val_loss", f"{run.name}, validation")
    return [replace(curve, entry=run.name) for curve in (train, marked)]


def _marked(i: int, run: RunCurves, key: str, name: str) -> _Curve:
    style = {
        "mode": "lines+markers",
        "line": {"width": 2.5, "dash": DASHES[i % len(DASHES)]},
        "marker": {"size": 8, "symbol": SYMBOLS[i % len(SYMBOLS)]},
        "tint": i,
    }
    return _Curve(name, _values(run.evaluations, key), style)


def layered(measures: Sequence[str]) -> dict[str, dict[str, str]]:
    """Measures of layers put together: {what: {layer: measure}}, the layer "" for one of no layer.

    >>> layered(["layer1/silent", "layer2/silent", "steps_10", "radius"])
    {'silent': {'1': 'layer1/silent', '2': 'layer2/silent'}, 'steps': {'10': 'steps_10'}, \
'radius': {'': 'radius'}}
    """
    found: dict[str, dict[str, str]] = {}
    for measure in measures:
        match = LAYERED.fullmatch(measure)
        what = match["what"] or match["of"] if match else measure
        layer = match["layer"] or match["last"] if match else ""
        found.setdefault(what, {})[layer] = measure
    return {
        what: dict(sorted(by_layer.items(), key=lambda item: int(item[0] or 0)))
        for what, by_layer in found.items()
    }


def _measure(by_layer: dict[str, str], runs: Sequence[RunCurves]) -> list[_Curve]:
    flat = [
        RunCurves(run.name, [], [{**e, **e.get("measures", {})} for e in run.evaluations])
        for run in runs
    ]
    curves = []
    for i, run in enumerate(flat):
        for n, (layer, measure) in enumerate(by_layer.items()):
            curve = _marked(i, run, measure, f"{run.name}, layer {layer}" if layer else run.name)
            several = {"tint": n} if len(by_layer) > 1 else {}  # then a colour is a layer's
            curves.append(replace(curve, style=curve.style | several))
    return curves


def _values(rows: list[dict[str, Any]], key: str) -> list[tuple[dict[str, Any], float]]:
    """Finite values only: a run that broke has others."""
    found = [
        (row, float(row[key]))
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    return thinned(found, MOST_POINTS)


def thinned(rows: list[Any], most: int) -> list[Any]:
    """At most `most` of them, evenly spaced, the last one always among them."""
    if len(rows) <= most:
        return rows
    return [rows[(i + 1) * len(rows) // most - 1] for i in range(most)]


def _picture(
    title: str, note: str, measures: dict[str, list[_Curve]], see: See | None = None
) -> Picture | None:
    """One figure of all measures that have curves, each against steps, tokens and seconds."""
    kept = {name: [c for c in curves if c.rows] for name, curves in measures.items()}
    kept = {name: curves for name, curves in kept.items() if curves}
    if not kept:
        return None
    variants = {
        name: [
            {
                "type": "scatter",
                "name": curve.name,
                **({"entry": curve.entry} if curve.entry else {}),
                "xs": [[row[key] for row, _ in curve.rows] for key in AGAINST.values()],
                "y": [rounded(value) for _, value in curve.rows],
                **curve.style,
            }
            for curve in curves
        ]
        for name, curves in kept.items()
    }
    tables = [
        Table(
            curve.name if len(kept) == 1 else f"{name}: {curve.name}",
            ["Step", "Tokens", "Seconds of training", name],
            [[row["step"], row["tokens"], row["seconds"], rounded(v)] for row, v in curve.rows],
        )
        for name, curves in kept.items()
        for curve in curves
    ]
    return Picture(
        title,
        note,
        variants,
        {"xaxis": axis("variant"), "yaxis": axis("variant")},
        "Measure",
        tables,
        see=see,
        against=tuple(AGAINST),
    )


def _sample(row: dict[str, Any]) -> str:
    return str(row.get("sample") or "")


def _samples(runs: Sequence[RunCurves]) -> list[Section]:
    """The last sample of each run, and its earlier ones folded."""
    note = "Text sampled at evaluations, always with the same random seed."
    rows = {run.name: [row for row in run.evaluations if _sample(row)] for run in runs}
    last = Table(
        "",
        ["Run", "Step", "Validation loss", "Text"],
        [
            [name, row["step"], rounded(float(row["val_loss"])), _sample(row)]
            for name, (*_, row) in rows.items()
        ],
    )
    earlier = [
        Table(
            name,
            ["Step", "Validation loss", "Text"],
            [
                [row["step"], rounded(float(row["val_loss"])), _sample(row)]
                for row in thinned(found[:-1], MOST_SAMPLES - 1)
            ],
        )
        for name, found in rows.items()
        if len(found) > 1
    ]
    sections = [Section("Samples", note, tables=[last])]
    if earlier:
        sections.append(Section("Earlier samples", "", tables=earlier, folded=True))
    return sections
