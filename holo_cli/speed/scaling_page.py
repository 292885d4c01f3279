"""The results of `holo bench scaling` for a reader: table, sentences and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from holo_cli.speed.measurements import Spread, error_bars
from holo_cli.speed.scaling import Growth, Scaling, growth_summary, length_row
from holo_cli.visualize.report import Report
from holo_cli.wording import counted


def table(scaling: Scaling) -> tuple[list[str], list[list[str]]]:
    """Microseconds per token by length, then growth and exponents."""
    lengths = [f"T {n:,}" for n in scaling.lengths]
    columns = ["Model", *lengths, "Growth", "by CPU time", "Exponent", "At the end"]
    rows = []
    for growth in scaling.growths:
        found = growth_summary(growth)
        medians = growth.medians()
        cells = [
            f"{medians[n] * 1e6:,.1f}" if n in medians else length_row(growth, n)["status"]
            for n in scaling.lengths
        ]
        rows.append(
            [growth.name, *cells, _times(growth.growth()), _times(growth.growth("cpu_seconds")),
             _number(found["exponent"]), _number(found["last_exponent"])]
        )  # fmt: skip
    return columns, rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _times(ratio: Spread | None) -> str:
    """A ratio, with its range over several rounds."""
    if ratio is None:
        return "–"
    around = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.count > 1 else ""
    return f"{ratio.median:.2f}x{around}"


def findings(scaling: Scaling) -> list[str]:
    """Sentences: the growth of each entry, where curves cross, and what failed."""
    base = next(g for g in scaling.growths if g.name == scaling.base)
    sentences = []
    for growth in scaling.growths:
        found, grown = growth_summary(growth), growth.growth()
        if grown is not None:
            around = f", {grown.low:.2f} to {grown.high:.2f} by round" if grown.count > 1 else ""
            sentences.append(
                f"{growth.name}: a token takes {grown.median:.2f} times as long at "
                f"{found['to']:,} as at {counted(found['from'], 'token')}{around} (T to the "
                "power of "
                f"{found['exponent']:.2f} over all lengths, {found['last_exponent']:.2f} between "
                "the last two)."
            )
        for length, reason in growth.failed.items():
            sentences.append(f"{growth.name} failed at {counted(length, 'token')}: {reason}.")
    for crossing in scaling.crossings():
        sentences.append(
            f"{crossing['faster']} is the faster of the two beyond about {crossing['length']:,} "
            f"tokens, {crossing['slower']} below."
        )
    crossed = [{c["faster"], c["slower"]} for c in scaling.crossings()]
    for growth in scaling.growths:
        if growth is not base and {growth.name, base.name} not in crossed:
            sentences += _against(growth, base, scaling.lengths)
    return sentences


def _against(growth: Growth, base: Growth, lengths: Sequence[int]) -> list[str]:
    """A sentence on an entry whose curve does not definitely cross the baseline's."""
    sides = growth.sides(base)
    sure = [length for length, side in sides.items() if side]
    if not sides:
        return []
    if not sure:
        return [f"{growth.name} and {base.name} are about as fast at every length measured."]
    faster = sides[sure[-1]] > 0
    where = (
        "every length"
        if sure == list(lengths)
        else f"{_listed(sure)} tokens; elsewhere rounds disagree or one is missing"
    )
    ratio = growth.speed_up(base, sure[-1])
    return [
        f"{growth.name} is {'faster' if faster else 'slower'} than {base.name} at "
        f"{where}. At {sure[-1]:,} tokens it is {ratio.median:.2f} times as fast "
        f"({ratio.low:.2f} to {ratio.high:.2f})."
    ]


def _listed(lengths: Sequence[int]) -> str:
    words = [f"{length:,}" for length in lengths]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def report(scaling: Scaling, title: str = "Scaling") -> Report:
    """The page."""
    shape = scaling.shape
    made = Report(
        title,
        "How the cost of a training step grows with the context: "
        f"{counted(shape['layers'], 'layer')}, "
        f"{shape['width']} wide, about {counted(scaling.tokens, 'token')} in every step. Medians "
        "of "
        f"{counted(shape['repeats'], 'round')}, each over all lengths and models in turn, each "
        "of them in a "
        "process of its own.",
        scaling.machine,
    )
    made.prose("\n".join(f"- {sentence}" for sentence in findings(scaling)), "Findings")
    columns, rows = table(scaling)
    made.table(
        "Microseconds per token", columns, rows,
        "Growth: the last length relative to the first, median and range over the rounds, by wall "
        "clock and by processor time. Exponent: p of T to the power of p, fitted on logarithms "
        "over all lengths, and between the last two.",
    )  # fmt: skip
    made.plot(
        "Time", [_time_trace(g) for g in scaling.growths if g.lengths()],
        _axes("Microseconds per token"),
        "Forward, backward and update. Both axes are logarithmic: a straight line is a power of T.",
    )  # fmt: skip
    with_memory = [g for g in scaling.growths if g.memories()]
    if with_memory:
        made.plot(
            "Memory", [_memory_trace(g) for g in with_memory], _axes("Bytes per token of the step"),
            "Peak resident memory of the training process minus what the libraries use, divided by "
            "the tokens of a step; it includes weights and the optimizer's state.",
        )  # fmt: skip
    return made


def _time_trace(growth: Growth) -> dict[str, Any]:
    spreads = {length: growth.time(length) for length in growth.lengths()}
    return {
        "name": growth.name,
        "x": list(spreads),
        "y": [spread.median * 1e6 for spread in spreads.values()],
        "error_y": error_bars(spreads.values(), 1e6),
    }


def _memory_trace(growth: Growth) -> dict[str, Any]:
    found = growth.memories()
    return {"name": growth.name, "x": list(found), "y": list(found.values())}


def _axes(title: str) -> dict[str, Any]:
    return {
        "xaxis": {"type": "log", "title": {"text": "Context T, tokens"}, "dtick": math.log10(2)},
        "yaxis": {"type": "log", "title": {"text": title}},
    }
