"""The tables of a run of the bench, in Markdown: what was tried, and what went wrong."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
KINDS = ("kill", "prepare", "scenario", "mutation")
TITLES = {
    "kill": "Kills in training",
    "prepare": "Kills in `holo prepare`",
    "scenario": "Scenarios",
    "mutation": "Mutations",
}


def campaign_of(case: str) -> str:
    """The campaign of a case: "mutation-12" -> "mutation"."""
    return case.partition("-")[0]


def fault_kind(row: Row) -> str:
    """The kind of a fault, the word before its colon; "" for none."""
    return str(row["fault"]).partition(":")[0]


def is_fault(row: Row) -> bool:
    """Whether something is wrong; a scenario that is not possible on this machine is not."""
    return fault_kind(row) not in ("", "skipped")


def markdown(rows: Iterable[Row], about: Sequence[str]) -> str:
    """The whole report."""
    rows = list(rows)
    by_kind = {kind: [row for row in rows if campaign_of(row["case"]) == kind] for kind in KINDS}
    parts = ["\n".join(about)] if about else []
    parts.append(summary(by_kind))
    parts += [part for part in (kills(by_kind["kill"], by_kind["prepare"]),) if part]
    parts += [part for part in (mutations(by_kind["mutation"]),) if part]
    parts += [part for part in (scenarios(by_kind["scenario"]),) if part]
    parts.append(exceptions([row for kind in KINDS for row in by_kind[kind]]))
    return "\n\n".join(parts) + "\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 1) -> str:
    """A Markdown table whose columns from `numbers` on are figures."""
    rule = ["---" if n < numbers else "---:" for n in range(len(heading))]
    lines = [list(heading), rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def summary(by_kind: dict[str, list[Row]]) -> str:
    """One line for each campaign."""
    rows = []
    for kind, found in by_kind.items():
        if found:
            faults = Counter(fault_kind(row) for row in found)
            bad = sum(map(is_fault, found))
            hangs, lost = faults["hang"], faults["lost"] + faults["half-written"]
            unexplained = faults["unexplained"] + faults["signal"] + faults["exit code"]
            rows.append((TITLES[kind], len(found), lost, unexplained, hangs, bad))
    heading = ("campaign", "cases", "bytes lost", "unexplained errors", "hangs", "faults in all")
    return table(heading, rows)


def kills(training: Sequence[Row], preparing: Sequence[Row]) -> str:
    """Kills by model and place."""
    rows = []
    for target in dict.fromkeys(row["target"] for row in (*training, *preparing)):
        found = [row for row in (*training, *preparing) if row["target"] == target]
        where = Counter(row["where"] for row in found)
        sent = Counter(row["damage"].split()[0] for row in found)
        signals = ", ".join(f"{count} {name}" for name, count in sent.most_common())
        bad = sum(bool(row["fault"]) for row in found)
        rows.append((target, signals, len(found), where["write"], bad))
    if not rows:
        return ""
    heading = ("killed", "signals", "kills", "of these inside a write", "faults")
    return "## Kills\n\n" + table(heading, rows, numbers=2)


def mutations(rows: Sequence[Row]) -> str:
    """Mutations by target: how they ended."""
    lines = []
    for target in sorted({row["target"] for row in rows}):
        found = [row for row in rows if row["target"] == target]
        refused = sum(row["exit"] in (1, 2) for row in found)
        bad = sum(bool(row["fault"]) for row in found)
        seconds = max(row["seconds"] for row in found)
        grown = max(row["grown_mib"] for row in found)
        lines.append((target, len(found), refused, bad, f"{seconds:.1f}", grown))
    if not lines:
        return ""
    heading = ("damaged", "cases", "refused", "faults", "slowest, s", "most memory, MiB")
    middle = statistics.median(row["seconds"] for row in rows)
    note = f"Median time of a command: {middle:.2f} s."
    return "## Mutations\n\n" + table(heading, lines) + f"\n\n{note}"


def scenarios(rows: Sequence[Row]) -> str:
    """What was done to the surroundings."""
    if not rows:
        return ""
    lines = [(row["damage"], _result(row["fault"])) for row in rows]
    return "## Scenarios\n\n" + table(("scenario", "result"), lines, numbers=2)


def _result(fault: str) -> str:
    return cell(fault) if fault else "good"


def exceptions(rows: Sequence[Row]) -> str:
    """Every fault, alike ones as one line."""
    bad = [row for row in rows if is_fault(row)]
    if not bad:
        return "## Exceptions\n\nNone."
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in bad:
        reason = re.sub(r"\d+", "N", str(row["fault"]))
        alike.setdefault((row["target"], reason), []).append(row)
    ordered = sorted(alike.values(), key=len, reverse=True)
    lines = [(found[0]["target"], cell(found[0]["fault"]), found[0]["case"], len(found))
             for found in ordered]  # fmt: skip
    return "## Exceptions\n\n" + table(("target", "fault", "first case", "cases"), lines, numbers=3)


def cell(text: str) -> str:
    """Text that a cell of a Markdown table can hold."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:300])
    return shown.replace("|", "\\|").replace("`", "'")
