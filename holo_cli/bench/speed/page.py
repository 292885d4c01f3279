"""The results of `holo bench speed` for a reader: table, sentences and page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holo_cli.bench.report import Report
from holo_cli.bench.speed.measurements import Spread, error_bars, megabytes, spread_text
from holo_cli.bench.speed.speed import PHASES, Speeds

COLUMNS = (
    "Model", "Parameters", "Training, tokens/s", "against {base}", "Share of products",
    "Optimizer", "Peak memory", "Decoding, tokens/s", "against {base}", "State",
)  # fmt: skip


def table(speeds: Speeds) -> tuple[list[str], list[list[str]]]:
    """Columns and rows as text."""
    columns = [column.format(base=speeds.base) for column in COLUMNS]
    return columns, [_cells(row) for row in speeds.rows()]


def _cells(row: Mapping[str, Any]) -> list[str]:
    training, decoding, failed = row["training"], row["decoding"], row.get("failed", {})
    cells = [str(row["name"]), _integer(row["parameters"])]
    if training is None:
        cells += [f"failed: {failed.get('training', 'not run')}", "–", "–", "–", "–"]
    else:
        share = training["product_share"]
        cells += [
            spread_text(training["tokens_per_second"], ",.0f"),
            spread_text(training["ratio"], ".2f", "x"),
            "–" if share is None else f"{share:.0%} ({training['dtype']})",
            f"{training['optimizer_share']['median']:.0%}",
            megabytes(training["peak_bytes"]),
        ]
    if decoding is None:
        cells += [f"failed: {failed.get('decoding', 'not run')}", "–", "–"]
    else:
        cells += [
            spread_text(decoding["tokens_per_second"], ",.0f"),
            spread_text(decoding["ratio"], ".2f", "x"),
            megabytes(decoding["state_bytes"]),
        ]
    return cells


def _integer(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def findings(speeds: Speeds) -> list[str]:
    """Sentences: which entry is fastest in training and decoding, which uses the least memory, and
    what failed. A difference within the spread of the rounds counts as none."""
    rows = speeds.rows()
    said = []
    for phase, what in zip(PHASES, ("trains", "decodes"), strict=True):
        for row in rows:
            found = row[phase]
            if found is None or row["name"] == speeds.base or found["ratio"] is None:
                continue
            ratio = found["ratio"]
            if ratio["count"] < 2:
                said.append(
                    f"{row['name']} {what} at {ratio['median']:.2f}x of {speeds.base}: one round "
                    "has no spread, so no verdict is given."
                )
            elif ratio["low"] <= 1 <= ratio["high"]:
                said.append(
                    f"{row['name']} {what} about as fast as {speeds.base}: "
                    f"{spread_text(ratio, '.2f', 'x')}, on both sides of 1."
                )
            else:
                side = "faster" if ratio["median"] > 1 else "slower"
                said.append(
                    f"{row['name']} {what} {side} than {speeds.base}: "
                    f"{spread_text(ratio, '.2f', 'x')}."
                )
    peaks = {r["name"]: r["training"]["peak_bytes"] for r in rows if r["training"]}
    known = {name: peak for name, peak in peaks.items() if peak is not None}
    if len(known) > 1:
        least = min(known, key=lambda name: known[name])
        said.append(
            f"{least} uses the least memory in training: {megabytes(known[least])} at its peak."
        )
    for row in rows:
        for phase, reason in row.get("failed", {}).items():
            said.append(f"{row['name']} failed in {phase}: {reason}")
    return said


def busy_note(speeds: Speeds) -> str:
    """A warning where processor time and wall clock differ: the machine was busy."""
    shares = [
        a["cpu_seconds"] / a["seconds"] / f.warm["training"]["threads"]
        for f in speeds.figures
        for a in f.rounds["training"].values()
        if f.warm["training"]["device"] == "cpu"
    ]
    share = Spread.of(shares)
    if share is None or share.median > 0.85:
        return ""
    return (
        f"While training was measured it had the processors {share.median:.0%} of the time: the "
        "machine was busy, or threads of the models were waiting. Ratios by processor time, in the "
        "page's second table, are more reliable."
    )


def report(speeds: Speeds, title: str = "Speed") -> Report:
    """The page."""
    shape, rows = speeds.shape, speeds.rows()
    made = Report(
        title,
        f"Training and decoding speed of each model at one common shape: {shape['layers']} layers, "
        f"{shape['width']} wide, batches of {shape['rows']} x {shape['context']} tokens, "
        f"a vocabulary of {shape['vocabulary']:,}. Figures are medians of {shape['repeats']} "
        f"rounds, with minimum and maximum in brackets; in each round every model was measured in "
        f"turn, each in a process of its own. 2x means twice as fast as {speeds.base}.",
        {**speeds.machine, **{f"products_{n}": _gflops(s) for n, s in speeds.products.items()}},
    )
    if sentences := findings(speeds):
        made.prose("\n".join(f"- {sentence}" for sentence in sentences), "Findings")
    columns, cells = table(speeds)
    made.table(
        "Speed and memory", columns, cells,
        "Share of products: the model's floating-point operations per second, by its own formula, "
        "as a share of what plain matrix products reached in the same rounds. Optimizer: its share "
        "of a step. Peak memory is that of the whole training process. Decoding starts in the "
        f"middle of the context and generates {shape['tokens']} tokens.",
    )  # fmt: skip
    if note := busy_note(speeds):
        made.prose(note)
    for phase, what in zip(PHASES, ("Training", "Decoding"), strict=True):
        bars = [_bar(row["name"], row[phase]) for row in rows if row[phase]]
        made.plot(f"{what}, tokens per second", bars, BARS)
    made.table(
        "By processor time, and before the first round",
        ["Model", "Training, by processor time", "Decoding, by processor time", "Building, s",
         "First step, s", "Warm-up, s", "Memory before the model"],
        [_details(row) for row in rows],
        "Building, the first step and the warm-up (with first step and compilation) are not "
        "included in the figures above.",
    )  # fmt: skip
    return made


BARS = {"yaxis": {"title": {"text": "Tokens/s"}, "rangemode": "tozero"}, "showlegend": False}


def _bar(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    rate = Spread(**figures["tokens_per_second"])
    bars = error_bars([rate])
    return {"type": "bar", "name": name, "x": [name], "y": [rate.median], "error_y": bars}


def _details(row: Mapping[str, Any]) -> list[str]:
    training, decoding = row["training"] or {}, row["decoding"] or {}
    return [
        row["name"],
        spread_text(training.get("cpu_ratio"), ".2f", "x"),
        spread_text(decoding.get("cpu_ratio"), ".2f", "x"),
        *(
            "–" if training.get(key) is None else f"{training[key]:.2f}"
            for key in ("build_seconds", "first_step_seconds", "warm_seconds")
        ),
        megabytes(training.get("before_bytes")),
    ]


def _gflops(spread: Spread) -> str:
    return f"{spread.median:.0f} GFLOP/s ({spread.low:.0f} to {spread.high:.0f})"
