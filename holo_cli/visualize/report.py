"""A report of measurements as one HTML file.

The page is that of `holo visualize` (`visualize/page.py`): plotly.js is inlined once, no network is
needed, and it supports light and dark themes, phones and print. Every plot has its data as tables,
made from its traces, so that each number on a picture is also in the text. A series has one colour,
dash and symbol in all plots of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from holo_cli.models.views import Picture, Table
from holo_cli.visualize.page import MISSING, Page, Section, picture_section, rounded, write_page

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")
NAMES = {  # titles of the machine's facts
    "cpu": "Processor",
    "cores": "Cores",
    "threads": "Threads used",
    "gflops_float32": "Products in float32, GFLOP/s",
    "gflops_bfloat16": "Products in bfloat16, GFLOP/s",
    "system": "System",
    "versions": "Versions",
    "date": "Measured",
}


class Report:
    """Sections are added in reading order; `write` creates the file.

    All strings are plain text. Floats are shown with four significant digits, on plots and in
    tables alike; None is shown as a dash, a value that is not finite as "not finite".
    """

    def __init__(self, title: str, intro: str, machine: Mapping[str, Any]) -> None:
        """`intro` explains in a few sentences what was measured and how to read it; `machine` is
        that of `experiment.machine.describe_machine`, with other facts (command, seeds, ...)."""
        self.title, self.intro, self.machine = title, intro, dict(machine)
        self._sections: list[Section] = []
        self._series: dict[str, int] = {}

    def table(
        self,
        caption: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        note: str = "",
    ) -> None:
        """A table that is not folded."""
        body = [[_shown(cell) for cell in row] for row in rows]
        self._sections.append(Section(caption, note, tables=[Table("", list(columns), body)]))

    def plot(
        self,
        caption: str,
        traces: Sequence[Mapping[str, Any]],
        layout: Mapping[str, Any],
        note: str = "",
    ) -> None:
        """A figure of Plotly traces with `x` and `y`, with its numbers in folded tables.

        Traces of one name have one colour in the whole report, unless they have "tint": i.
        `error_y` bars and `text` go into the tables too; a table is called as its trace is, or as
        the trace's "table" entry names it.
        """
        drawn = [self._styled(trace) for trace in traces]
        titles = [_title(layout, "xaxis", "x"), _title(layout, "yaxis", "y")]
        tables = [_numbers(trace, titles) for trace in drawn]
        drawn = [{key: v for key, v in trace.items() if key != "table"} for trace in drawn]
        marked = {**layout, **_log_ticks(layout, drawn)}
        picture = Picture(caption, note, {caption: drawn}, marked, tables=tables)
        self._sections.append(picture_section(picture))

    def prose(self, text: str, title: str = "") -> None:
        """Paragraphs, separated by empty lines; lines that begin with "- " make a list."""
        self._sections.append(Section(title, "", prose=text))

    def write(self, path: Path) -> int:
        """Write the file atomically; returns its size in bytes."""
        known = {
            **NAMES,
            **{k: k.replace("_", " ").capitalize() for k in self.machine.keys() - NAMES},
        }
        facts = [(known[k], _fact(v)) for k, v in self.machine.items() if v is not None]
        rest = [fact for fact in facts if fact[0] != NAMES["date"]]
        measured = [
            (name, f"{moment(value)} UTC") for name, value in facts if name == NAMES["date"]
        ]
        sections = list(self._sections)
        if rest:
            table = Table("", ["What", "Value"], rest)
            sections.append(Section("Where this was measured", "", tables=[table]))
        return write_page(Page(self.title, measured, sections, self.intro), path)

    def _styled(self, trace: Mapping[str, Any]) -> dict[str, Any]:
        """The trace with rounded finite numbers and the style of its series."""
        made = {key: _finite(value) for key, value in trace.items()}
        number = self._series.setdefault(str(trace.get("name", "")), len(self._series))
        made.setdefault("type", "scatter")
        made.setdefault("tint", number)
        if made["type"] == "scatter":
            made.setdefault("mode", "lines+markers")
            made["line"] = {"dash": DASHES[number % len(DASHES)], **made.get("line", {})}
            symbol = SYMBOLS[number % len(SYMBOLS)]
            made["marker"] = {"size": 8, "symbol": symbol, **made.get("marker", {})}
        return made


def moment(date: str) -> str:
    """An ISO date in UTC, as a person reads it."""
    return date.replace("T", " ").replace("+00:00", "")


def _finite(value: Any) -> Any:
    """Rounded numbers; None for those that are not finite, which leaves a gap."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return rounded(value) if math.isfinite(value) else None
    return value


def _shown(cell: object) -> object:
    if cell is None:
        return MISSING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return rounded(cell) if math.isfinite(cell) else "not finite"
    return cell


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _title(layout: Mapping[str, Any], axis: str, default: str) -> str:
    title = layout.get(axis, {}).get("title", default)
    return str(title.get("text", default) if isinstance(title, Mapping) else title)


def _log_ticks(
    layout: Mapping[str, Any], traces: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Ticks of logarithmic axes: 1, 2, 5, 10 over more than a decade, powers of ten over more than
    three. Plotly would label every digit, and between powers of ten with one digit alone."""
    found = {}
    for axis in ("xaxis", "yaxis"):
        given = layout.get(axis, {})
        values = [v for trace in traces for v in trace.get(axis[0], []) if v]
        if given.get("type") != "log" or "dtick" in given or not values:
            continue
        decades = math.log10(max(values) / min(values))
        whole = {"tickformat": "~s" if min(values) >= 1 else "~g"}  # 20G, 512k; 0.5
        marks = {} if decades <= 1 else {"dtick": "D2"} if decades <= 3 else {"dtick": 1}
        found[axis] = {**whole, **given, **marks}
    return found


def _numbers(trace: Mapping[str, Any], titles: Sequence[str]) -> Table:
    columns, lists = list(titles), [list(trace.get("x", [])), list(trace.get("y", []))]
    for axis, title in zip(("error_x", "error_y"), titles, strict=True):
        bars = trace.get(axis, {})
        if "array" in bars:
            minus = bars.get("arrayminus", bars["array"])
            columns += [f"{title}: below", f"{title}: above"]
            lists += [list(minus), list(bars["array"])]
    text = trace.get("text")
    if isinstance(text, list):
        columns.append("Note")
        lists.append(text)
    rows = [[_shown(cell) for cell in row] for row in zip_longest(*lists)]
    caption = str(trace.get("table") or trace.get("name") or "Values")
    return Table(caption, columns, rows)
