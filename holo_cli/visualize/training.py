"""Curves and samples of runs, from what `holo train` logged in runs/RUN/metrics.jsonl."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holo_cli.checkpoint.find import check_run_name
from holo_cli.errors import DataError, nearest
from holo_cli.models.views import Picture, Table
from holo_cli.names import existing
from holo_cli.parsing import ParseError, parse_object, read_bytes
from holo_cli.paths import RUNS
from holo_cli.visualize.page import Section, picture_section, rounded

LOG = "metrics.jsonl"
MOST_POINTS = 1000  # of one curve; longer ones are thinned evenly, the last point kept
MOST_SAMPLES = 12  # of one run, evenly over its evaluations, the last one kept
AGAINST = {"steps": "step", "tokens": "tokens", "seconds of training": "seconds"}
LAYERED = re.compile(r"layer(?P<layer>\d+)/(?P<what>.+)|(?P<of>.+)_(?P<last>\d+)")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


@dataclass(frozen=True)
class RunCurves:
    """The rows of a run's log that are drawn, each with "step", "tokens" and "seconds"."""

    name: str
    train: list[dict[str, Any]]  # "loss"
    evaluations: list[dict[str, Any]]  # "val_loss", "bpb", perhaps "sample" and "measures"
    start: dict[str, Any] = field(default_factory=dict)  # the log's first row, as far as it goes

    def summary(self) -> str:
        """The model, its data, its last step and its best loss, in one line."""
        step = max(row["step"] for row in (*self.train, *self.evaluations))
        parts = [self.start.get("model"), self.start.get("preset")]
        what = " ".join(str(part) for part in parts if part)
        data = f"on {self.start['data']}" if self.start.get("data") else ""
        best = [value for _, value in _values(self.evaluations, "val_loss")]
        loss = f"best validation loss {min(best):.4f}" if best else ""
        return ", ".join(part for part in (what, data, f"step {step:,}", loss) if part)


def read_run(name: str, root: Path = RUNS) -> RunCurves:
    """Read a run's log. Raises DataError for a run without one, or a log that is damaged."""
    path = existing(root / check_run_name(name)) / LOG
    try:
        content = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        there = [found.parent.name for found in root.glob(f"*/{LOG}")]
        raise DataError(
            f"The run '{name}' has no log at {path.as_posix()}.",
            next_step=nearest(name, there) or "Name a run with --run, from the folder it ran in.",
        ) from error
    except ParseError as error:
        raise DataError(f"The log {path.as_posix()} cannot be read: it is {error}.") from error
    run = RunCurves(name, [], [])
    # a last line without an end is being written, or was cut off by a crash
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            event = parse_object(line, nan=True) if line else {}
            if event.get("event") == "start":
                run.start.update(event)
            elif event.get("event") == "train":
                run.train.append(_row(event, event["seconds"]))
            elif event.get("event") == "eval":
                run.evaluations.append(_row(event, event["train_seconds"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Line {number} of {path.as_posix()} is damaged.",
                next_step="Delete that line, or train the run again.",
            ) from error
    if not run.train and not run.evaluations:
        raise DataError(
            f"The log {path.as_posix()} has no figures yet.",
            next_step="Wait for the run's first steps.",
        )
    return run


def _row(event: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The event with the three things that curves are drawn against."""
    against = {"step": int(event["step"]), "tokens": int(event["tokens"])}
    return event | against | {"seconds": round(float(seconds), 1)}


def training_sections(runs: Sequence[RunCurves]) -> list[Section]:
    """Loss, bits per byte and every measure that models logged, then the samples."""
    losses = _picture(
        "Loss",
        "Nats per token: thin lines are training batches, marked lines the full validation set.",
        [c for i, run in enumerate(runs) for c in _losses(i, run)],
    )
    bits = _picture(
        "Bits per byte",
        "Of the validation set; unlike the loss, comparable between tokenizers.",
        [_marked(i, run, "bpb", run.name) for i, run in enumerate(runs)],
    )
    measures = sorted({m for run in runs for e in run.evaluations for m in e.get("measures", {})})
    others = [
        _picture(name, _measured(by_layer), _measure(by_layer, runs))
        for name, by_layer in layered(measures).items()
    ]
    sections = [picture_section(p) for p in (losses, bits, *others) if p is not None]
    return [*sections, *(_samples(run) for run in runs if any(map(_sample, run.evaluations)))]


@dataclass(frozen=True)
class _Curve:
    name: str
    rows: list[tuple[dict[str, Any], float]]  # its row, and the value
    style: dict[str, Any]


def _losses(i: int, run: RunCurves) -> list[_Curve]:
    thin = {"mode": "lines", "line": {"width": 1, "dash": DASHES[i % len(DASHES)]}, "opacity": 0.6}
    train = _Curve(f"{run.name}, training", _values(run.train, "loss"), {**thin, "tint": i})
    return [train, _marked(i, run, "val_loss", f"{run.name}, validation")]


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


def _measured(by_layer: dict[str, str]) -> str:
    lines = ", one line per layer" if len(by_layer) > 1 else ""
    return f"Logged by the model at each evaluation{lines}."


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


def _picture(title: str, note: str, curves: list[_Curve]) -> Picture | None:
    curves = [curve for curve in curves if curve.rows]
    if not curves:
        return None
    variants = {
        against: [
            {
                "type": "scatter",
                "name": curve.name,
                "x": [row[key] for row, _ in curve.rows],
                "y": [rounded(value) for _, value in curve.rows],
                **curve.style,
            }
            for curve in curves
        ]
        for against, key in AGAINST.items()
    }
    columns = ["Step", "Tokens", "Seconds of training", title]
    tables = [
        Table(
            curve.name,
            columns,
            [[row["step"], row["tokens"], row["seconds"], rounded(v)] for row, v in curve.rows],
        )
        for curve in curves
    ]
    layout = {"xaxis": {"title": {"text": "variant"}}, "yaxis": {"title": {"text": title}}}
    return Picture(title, note, variants, layout, "Against", tables)


def _sample(row: dict[str, Any]) -> str:
    return str(row.get("sample") or "")


def _samples(run: RunCurves) -> Section:
    rows = thinned([row for row in run.evaluations if _sample(row)], MOST_SAMPLES)
    note = "Text sampled at evaluations, always with the same random seed."
    table = Table(
        "Samples",
        ["Step", "Validation loss", "Text"],
        [[row["step"], rounded(float(row["val_loss"])), _sample(row)] for row in rows],
    )
    return Section(f"Samples of {run.name}", note, tables=[table])
