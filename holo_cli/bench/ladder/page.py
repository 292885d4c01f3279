"""The results of a ladder for a reader: sentences, text tables, JSON, and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holo_cli.bench.compare.summary import signed
from holo_cli.bench.ladder.plan import Ladder, sizes
from holo_cli.bench.ladder.summary import AXES, Interval, LadderSummary, Track
from holo_cli.experiment.experiment import SWEEP_SEED
from holo_cli.experiment.result_log import test_loss
from holo_cli.visualize.report import Report, moment
from holo_cli.wording import counted

TableRows = list[Sequence[str]]
GAPS = {  # of `Against.gap`, for a sentence
    "gap opens": "The gap between the two grows with size.",
    "gap closes": "The gap between the two shrinks with size.",
    "no change seen": "No change of the gap with size is seen.",
    "not known": "Whether the gap changes with size is not known.",
}


def verdict_of(summary: LadderSummary, entry: str) -> str:
    """The common verdict of both gates over all budgets."""
    tracks = [summary.track(entry, budget) for budget in summary.budgets]
    gates = [t.rungs_gate for t in tracks]
    gates += [t.against.gate if t.against else "not known" for t in tracks]
    if len(set(gates)) == 1:
        return gates[0]
    return "not known" if "not known" in gates else "not shown"


def findings(summary: LadderSummary) -> list[str]:
    """The findings: a verdict for each entry with its gates by budget, then cautions and
    remarks."""
    lines = []
    for entry in summary.entries:
        if entry == summary.base:
            continue
        overall = verdict_of(summary, entry)
        gates = " ".join(
            _gates(summary.track(entry, budget), summary) for budget in summary.budgets
        )
        head = {
            "better": f"{entry} is better than {summary.base} at every rung and by extrapolation.",
            "worse": f"{entry} is worse than {summary.base} at every rung and by extrapolation.",
            "not shown": f"{entry} is not shown to be better or worse than {summary.base} in both "
            "gates.",
            "not known": f"Whether {entry} is better than {summary.base} is not known.",
        }[overall]
        lines.append(f"{head} {gates}")
    notes: dict[str, list[str]] = {}
    several = len(summary.budgets) > 1
    for budget, tracks in summary.budgets.items():
        for track in tracks:
            for note in track.notes:
                name = f"{track.entry} ({budget:g})" if several else track.entry
                notes.setdefault(note, []).append(name)
    lines += [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    return lines + summary.remarks


def _gates(track: Track, summary: LadderSummary) -> str:
    counts = {
        word: sum(point.verdict == word for point in track.points) for word in ("better", "worse")
    }
    rungs, axis = counted(len(track.points), "rung"), AXES[summary.axis]
    said = [
        f"At {track.budget:g} tokens per parameter it is better at {counts['better']} and worse at "
        f"{counts['worse']} of {rungs}."
    ]
    against = track.against
    if against is None:
        return " ".join([*said, "It has no curve."])
    equal = _with_ends(against.at_equal, against.at_equal_interval)
    said.append(f"Its curve differs by {equal} at equal {axis}.")
    if math.isnan(against.ahead):
        said.append(f"At {summary.ahead:g} times the largest no difference can be computed.")
    else:
        ahead = _with_ends(against.ahead, against.ahead_interval)
        said.append(f"At {summary.ahead:g} times the largest it differs by {ahead}.")
    return " ".join([*said, GAPS[against.gap]])


def _with_ends(value: float, interval: Interval | None) -> str:
    """A difference with its interval, for a sentence."""
    return f"{value:+.4f} nats per token" + (
        "" if interval is None else f" ({interval[0]:+.4f} to {interval[1]:+.4f})"
    )


def to_dict(summary: LadderSummary) -> list[dict[str, Any]]:
    """For --json: one object per entry and budget."""
    return [_dict_of(track, summary) for tracks in summary.budgets.values() for track in tracks]


def _dict_of(track: Track, summary: LadderSummary) -> dict[str, Any]:
    fitted, against = track.fitted, track.against
    found: dict[str, Any] = {
        "entry": track.entry,
        "tokens_per_parameter": track.budget,
        "rungs": [
            {"rung": p.rung, "x": p.x, "verdict": p.verdict, **p.line.to_dict()}
            | {"difference": p.difference and p.difference.value}
            | {"difference_half": p.difference and p.difference.half}
            for p in track.points
        ],
        "gate_rungs": track.rungs_gate,
        "gate_extrapolation": against.gate if against else "not known",
        "notes": track.notes,
    }
    if fitted is not None and fitted.curve.falls:
        curve = fitted.curve
        alpha = float(curve.alpha[0])
        found["fit"] = {
            "E": float(curve.E[0]),
            "A": float(curve.A[0]) * curve.x0**alpha,
            "alpha": alpha,
            "alpha_interval": track.slope and track.slope[1],
        }
    if against is not None:
        found |= {
            "difference_at_equal": against.at_equal,
            "difference_at_equal_interval": against.at_equal_interval,
            "share_needed": against.needed,
            "share_needed_interval": against.needed_interval,
            "difference_ahead": against.ahead,
            "difference_ahead_interval": against.ahead_interval,
            "trend_per_tenfold": against.trend,
            "trend_half": against.trend_half,
            "gap": against.gap,
        }
    if track.entry != summary.base:
        found["verdict"] = verdict_of(summary, track.entry)
    return found


# -- text tables, within 80 columns ---------------------------------------------------------------


def rungs_table(tracks: Sequence[Track], base: str) -> tuple[Sequence[str], TableRows]:
    """A row for each rung and entry."""
    rows: TableRows = []
    for number in range(len(tracks[0].points)):
        for track in tracks:
            point = track.points[number]
            difference, loss = point.difference, point.line.loss
            rows.append((
                point.rung if track is tracks[0] else "",
                track.entry,
                "not run" if loss is None else f"{loss:.4f}",
                "" if point.line.rate is None else f"x{point.line.rate:g}",
                "" if difference is None else signed(difference.value, difference.half),
                point.verdict,
            ))  # fmt: skip
    return ("rung", "entry", "nats", "rate", f"vs {base}", "verdict"), rows


def curves_table(tracks: Sequence[Track], ahead: float) -> tuple[Sequence[str], TableRows]:
    """A row for each entry: exponent, difference ahead, share of the x needed, the gap."""
    rows: TableRows = []
    for track in tracks:
        slope, against = track.slope, track.against
        cells = [track.entry, "no curve" if slope is None else ranged(*slope, digits=2)]
        if against is None:
            cells += ["", "", ""]
        else:
            cells += [
                ranged(against.ahead, against.ahead_interval, digits=3, plus=True),
                ranged(against.needed, against.needed_interval, digits=2),
                against.gap.removeprefix("gap ").removesuffix(" seen"),
            ]
        rows.append(cells)
    return ("entry", "alpha", f"nats at {ahead:g}x", "share needed", "gap"), rows


def ranged(value: float, interval: Interval | None, *, digits: int, plus: bool = False) -> str:
    """A value with its interval; infinite is "never"."""

    def shown(number: float) -> str:
        if math.isnan(number):
            return "unknown"
        if number > 99.9:
            return "never" if math.isinf(number) else ">99"
        return f"{number:{'+' if plus else ''}.{digits}f}"

    if interval is None or math.isnan(value):
        return shown(value)
    return f"{shown(value)} {shown(interval[0])}..{shown(interval[1])}"


# -- the page -------------------------------------------------------------------------------------

Trace = dict[str, Any]
STEPS = 25  # points of a drawn curve


def write_page(ladder: Ladder, summary: LadderSummary, path: Path) -> int:
    """Write the page; returns its size in bytes."""
    plan = ladder.plan
    machines = [row["machine"] for row in ladder.rows]
    report = Report(
        plan.shared.title or f"Does the lead hold with size on {ladder.data.name}?",
        f"{counted(len(summary.entries), 'entry')} at {counted(len(plan.rungs), 'size')}, "
        "matched in parameters, "
        f"trained from scratch on '{ladder.data.name}'. Lower losses are better. A verdict needs "
        "two gates: better at every size, and better by extrapolation of the fitted curves.",
        dict(machines[-1]) if machines else {},
    )
    report.prose("\n".join(f"- {text}" for text in findings(summary)), "Findings")
    for budget, tracks in summary.budgets.items():
        traces = [trace for track in tracks for trace in _traces(track, summary)]
        if traces:
            report.plot(
                f"{budget:g} tokens per parameter", traces, _axes(AXES[summary.axis]),
                "Each mark is a seed. Lines are fits of L = E + A x^-alpha, dotted lines their "
                "95 % interval, dashed parts extrapolation.",
            )  # fmt: skip
    _losses(report, summary)
    _curves(report, summary)
    report.table(
        "Rungs and budgets",
        ("rung", "tokens per parameter", "entry", "parameters", "layers", "width", "MLP ratio",
         "steps", "tokens", "epochs", "training FLOPs", "rates swept at"),
        [tuple(row.values()) for row in sizes(ladder)],
        "Epochs: how often a run reads the training text. FLOPs are computed by formula.",
    )  # fmt: skip
    _runs(report, ladder)
    report.prose(_method(ladder, summary), "Method")
    return report.write(path)


def _traces(track: Track, summary: LadderSummary) -> list[Trace]:
    """Seeds as marks; the curve is solid within the measured range and dashed beyond it."""
    marks: Trace = {"name": track.entry, "x": [], "y": [], "text": [], "mode": "markers"}
    for point in track.points:
        for seed, loss in point.line.by_seed().items():
            marks["x"].append(point.x)
            marks["y"].append(loss)
            marks["text"].append(f"{point.rung}, seed {seed}")
    if not marks["x"]:
        return []
    traces = [marks]
    if track.fitted is None or not track.fitted.curve.falls:
        return traces
    low, high = min(marks["x"]), max(marks["x"])
    for x, dash, what in (
        (np.geomspace(low, high, STEPS), "solid", "fit"),
        (np.geomspace(high, summary.ahead * high, STEPS), "dash", "extrapolation"),
    ):
        traces.append(_line(track, f"{track.entry}: {what}", x, _at(track, x), dash))
        if track.fitted.resampled is not None:
            band = [
                track.fitted.interval(float(y), track.fitted.resampled.loss(float(at)))
                for at, y in zip(x, _at(track, x), strict=True)
            ]
            for side, name in enumerate(("lower", "upper")):
                edge = np.array([ends[side] for ends in band])
                traces.append(_line(track, f"{track.entry}: {what}, {name} end", x, edge, "dot"))
    return traces


def _at(track: Track, x: Any) -> Any:
    assert track.fitted is not None
    return np.array([track.fitted.curve.loss(float(at))[0] for at in x])


def _line(track: Track, table: str, x: Any, y: Any, dash: str) -> Trace:
    return {
        "name": track.entry,
        "table": table,
        "x": [float(at) for at in x],
        "y": [float(at) for at in y],
        "mode": "lines",
        "line": {"dash": dash, "width": 1 if dash == "dot" else 2},
        "opacity": 0.5 if dash == "dot" else 1.0,
        "showlegend": False,
    }


def _losses(report: Report, summary: LadderSummary) -> None:
    rows = [
        (
            f"{budget:g}", point.rung, track.entry, _fixed(point.line.loss),
            _fixed(point.line.loss_sd), len(point.line.losses),
            None if point.line.rate is None else f"x{point.line.rate:g}",
            None if point.difference is None else f"{point.difference.value:+.4f}",
            None if point.difference is None else _fixed(point.difference.half),
            point.verdict or None, point.line.note,
        )
        for budget, tracks in summary.budgets.items()
        for number in range(len(tracks[0].points))
        for track in tracks
        for point in [track.points[number]]
    ]  # fmt: skip
    columns = (
        "tokens per parameter", "rung", "entry", "nats per token", "sd", "seeds", "rate",
        f"nats against {summary.base}", "± 95 %", "verdict", "remarks",
    )  # fmt: skip
    report.table(
        "Gate 1: at every rung",
        columns,
        rows,
        "Differences are paired by seed; ± 95 % is half of their interval, in nats per token.",
    )


def _curves(report: Report, summary: LadderSummary) -> None:
    rows = []
    for budget, tracks in summary.budgets.items():
        for track in tracks:
            against, slope = track.against, track.slope
            fitted = track.fitted
            rows.append((
                f"{budget:g}", track.entry,
                None if fitted is None else f"{float(fitted.curve.E[0]):.3f}",
                None if slope is None else ranged(*slope, digits=3),
                *([None] * 5 if against is None else [
                    ranged(against.at_equal, against.at_equal_interval, digits=4, plus=True),
                    ranged(against.needed, against.needed_interval, digits=3)
                    + (", extrapolated" if against.needed_ahead else ""),
                    f"{against.trend:+.4f}"
                    + ("" if against.trend_half is None else f" ± {against.trend_half:.4f}"),
                    ranged(against.ahead, against.ahead_interval, digits=4, plus=True),
                    against.gate,
                ]),
            ))  # fmt: skip
    columns = (
        "tokens per parameter", "entry", "E", "alpha", "nats at equal x",
        f"share of {summary.base}'s x needed", "change in nats for 10 times the x",
        f"nats at {summary.ahead:g} times the x", "gate 2",
    )  # fmt: skip
    report.table(
        "Gate 2: by extrapolation", columns, rows,
        f"x is {AXES[summary.axis]}; nats are differences to {summary.base} in nats per token; "
        "below zero is better. The share needed is the part of the baseline's largest x at which "
        "an entry's curve reaches the same loss as the baseline's curve: 0.8 saves 20 %. Intervals "
        "come from resampling seeds; they do not include a wrong form of the curve. Cautions are "
        "among the findings above.",
    )  # fmt: skip


def _runs(report: Report, ladder: Ladder) -> None:
    rows = [
        (
            experiment.rung.name, f"{budget:g}", run.entry, run.role, f"x{run.rate:g}", run.seed,
            "not run" if row is None else row["status"] if row["status"] == "done"
            else row["error"],
            test_loss(row) if row and row["status"] == "done" else None, row and row.get("steps"),
            row and row.get("train_seconds"), row and row["code"], row and moment(row["date"]),
        )
        for budget in ladder.plan.budgets
        for experiment in ladder.ordered(budget)
        for run in experiment.wanted()
        for row in [experiment.row(run)]
    ]  # fmt: skip
    columns = (
        "rung", "tokens per parameter", "entry", "role", "rate", "seed", "status", "nats per token",
        "steps", "training s", "code", "finished, UTC",
    )  # fmt: skip
    report.table("Every run", columns, rows, "From the raw rows beside this page.")


def _method(ladder: Ladder, summary: LadderSummary) -> str:
    plan = ladder.plan
    first = plan.shared.first_seed
    last = first + plan.shared.seeds - 1
    swept = ", ".join(rung.name for rung in plan.swept_rungs)
    transfers = ", ".join(
        f"{rung.name} uses the rates of {plan.rates_from(rung).name}"
        for rung in plan.rungs
        if rung not in plan.swept_rungs
    )
    return f"""Each rung is a comparison as holo bench compare makes it: equal tokens in equal \
order, parameters matched within {plan.shared.tolerance:.0%}, steps set so that a run reads the \
budget's tokens per parameter, and the whole schedule. Learning rates \
are chosen by the loss on one half of the validation text after the last step, and the loss on the \
other half is reported.

Learning rates are swept (seed {SWEEP_SEED}) for each budget at {swept}; \
{transfers or "no rung takes its rates from another"}. A rate that is best at one size need not be \
best at another, so a rung without a sweep may favour an entry. Seeds {first} to {last} are \
reported.

Curves: L = E + A x^-alpha with x = {AXES[summary.axis]}, for each entry and budget, by Huber's \
loss on relative errors (Hoffmann et al. 2022, arXiv 2203.15556). Intervals: {plan.resamples} \
resamples of the seeds within each rung, the same seeds for an entry and the baseline, \
percentiles widened for few seeds by Student's t. A curve that misses the mean of a rung by more \
than its seeds explain is not extrapolated. Gate 1 has Holm's correction for the number of entries \
at each rung, gate 2 Bonferroni's. The trend is a straight line through the paired differences \
over log10 x.

Prepared set: {ladder.data.name}, fingerprint {ladder.data.fingerprint[:16]}."""


def _fixed(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _axes(x: str) -> dict[str, Any]:
    return {
        "xaxis": {"type": "log", "title": {"text": x}},
        "yaxis": {"title": {"text": "nats per token"}},
    }
