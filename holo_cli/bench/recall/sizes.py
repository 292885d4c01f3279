"""Accuracy against bytes of state where a plan has several widths: a line for each entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holo_cli.bench.recall.plan import TaskSpec
from holo_cli.bench.recall.run import Recall, Score, accuracy
from holo_cli.bench.report import Report
from holo_cli.bench.tasks import Case


class Size(NamedTuple):
    """One entry at one width, in one case."""

    width: int
    state_bytes: int | None  # None: not run
    accuracy: float | None


def cases_shown(spec: TaskSpec) -> list[Case]:
    """The hardest case that was trained on, and the longest that was only tested."""
    hardest = max(spec.train, key=lambda case: (case.items, case.length))
    return [hardest, max(spec.test)] if spec.test else [hardest]


def by_size(recall: Recall, scores: Sequence[Score], case: Case) -> dict[str, list[Size]]:
    """Each entry of the plan with its sizes, narrowest first. Empty for a plan without widths."""
    found: dict[str, list[Size]] = {}
    for score in scores:
        family, width = recall.families[score.entry]
        if score.case == case and width is not None:
            found.setdefault(family, []).append(Size(width, score.state_bytes, score.accuracy))
    return {family: sorted(sizes) for family, sizes in found.items()}


def add_plots(report: Report, recall: Recall, spec: TaskSpec, scores: Sequence[Score]) -> None:
    """A figure for each case that is shown: logarithmic in bytes, a mark for each width."""
    for case in cases_shown(spec):
        traces: list[dict[str, Any]] = []
        for family, sizes in by_size(recall, scores, case).items():
            run = [s for s in sizes if s.accuracy is not None]
            if run:
                traces.append(
                    {
                        "name": family,
                        "x": [s.state_bytes for s in run],
                        "y": [100 * (s.accuracy or 0.0) for s in run],
                        "mode": "lines+markers",
                        "text": [f"width {s.width}" for s in run],
                    }
                )
        if traces:
            report.plot(
                f"{spec.task.title}, {case.length} tokens with {case.items}: what state buys",
                traces,
                {
                    "xaxis": {"title": {"text": "state, bytes"}, "type": "log"},
                    "yaxis": {"title": {"text": "right answers, %"}, "range": [-3, 103]},
                },
                "A line for each model, a mark for each width. Further left and higher is better: "
                "more recalled with less state.",
            )


def size_table(
    recall: Recall, scores: Sequence[Score], case: Case, size: Any
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a reader: entries down, widths across, "accuracy at state"."""
    lines = by_size(recall, scores, case)
    widths = sorted({s.width for sizes in lines.values() for s in sizes})
    rows = []
    for family, sizes in lines.items():
        cells = {
            s.width: "–" if s.state_bytes is None else f"{accuracy(s.accuracy)} at "
            f"{size(s.state_bytes)}" for s in sizes
        }  # fmt: skip
        rows.append([family, *(cells.get(width, "–") for width in widths)])
    return ["model", *(f"width {width}" for width in widths)], rows
