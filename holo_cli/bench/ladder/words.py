"""A ladder's findings as sentences, text tables and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from holo_cli.bench.compare.summary import signed
from holo_cli.bench.ladder.summary import AXES, Interval, LadderSummary, Track

Rows = list[Sequence[str]]


def verdict_of(summary: LadderSummary, entry: str) -> str:
    """The common verdict of both gates over all budgets."""
    tracks = [summary.track(entry, budget) for budget in summary.budgets]
    gates = [t.rungs_gate for t in tracks]
    gates += [t.against.gate if t.against else "not known" for t in tracks]
    if len(set(gates)) == 1:
        return gates[0]
    return "not known" if "not known" in gates else "not shown"


def sentences(summary: LadderSummary) -> list[str]:
    """The findings: a verdict for each entry with its gates by budget, then cautions and
    remarks."""
    lines = []
    for entry in summary.entries:
        if entry == summary.base:
            continue
        overall = verdict_of(summary, entry)
        gates = "; ".join(
            _gates(summary.track(entry, budget), summary) for budget in summary.budgets
        )
        head = {
            "better": f"{entry} is better than {summary.base} at every rung and by extrapolation",
            "worse": f"{entry} is worse than {summary.base} at every rung and by extrapolation",
            "not shown": f"{entry} is not shown to be better or worse than {summary.base} in both "
            "gates",
            "not known": f"{entry} against {summary.base}: not known",
        }[overall]
        lines.append(f"{head}. {gates}.")
    notes: dict[str, list[str]] = {}
    several = len(summary.budgets) > 1
    for budget, tracks in summary.budgets.items():
        for track in tracks:
            for note in track.notes:
                who = f"{track.entry} ({budget:g})" if several else track.entry
                notes.setdefault(note, []).append(who)
    lines += [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    return lines + summary.remarks


def _gates(track: Track, summary: LadderSummary) -> str:
    counts = {
        word: sum(point.verdict == word for point in track.points) for word in ("better", "worse")
    }
    first = ", ".join(f"{word} at {n} of {len(track.points)} rungs" for word, n in counts.items())
    text = f"{track.budget:g} tokens per parameter: {first}"
    against = track.against
    if against is None:
        return f"{text}; no curve"
    equal = _with_ends(against.at_equal, against.at_equal_interval)
    text += f"; at equal {AXES[summary.axis]} {equal}"
    text += f"; at {summary.ahead:g} times the largest "
    text += _with_ends(against.ahead, against.ahead_interval)
    return f"{text}; {against.gap}"


def _with_ends(value: float, interval: Interval | None) -> str:
    """A difference with its interval, for a sentence."""
    if math.isnan(value):
        return "no difference can be computed"
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


def rungs_table(tracks: Sequence[Track], base: str) -> tuple[Sequence[str], Rows]:
    """A row for each rung and entry."""
    rows: Rows = []
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


def curves_table(tracks: Sequence[Track], ahead: float) -> tuple[Sequence[str], Rows]:
    """A row for each entry: exponent, difference ahead, share of the x needed, the gap."""
    rows: Rows = []
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
