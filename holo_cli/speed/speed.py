"""`holo bench speed`: training and decoding speed of each model at one common shape, and memory.

Every model has a process of its own and is measured in turn, round after round, so that other load
on the machine affects all alike. A ratio is taken within a round, and the median is over rounds.
The machine's rate of matrix products is measured before each round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from holo_cli.errors import UsageError
from holo_cli.experiment.machine import describe_machine, product_rate
from holo_cli.speed.measurements import (
    MeasurementLog,
    Notify,
    ResolvedEntry,
    Spread,
    as_dict,
    baseline_of,
    error_bars,
    megabytes,
    rates,
    speed_ratio,
    spread_text,
)  # fmt: skip
from holo_cli.speed.model_process import ModelProcess, ModelProcessError, Reply, run_rounds
from holo_cli.visualize.report import Report
from holo_cli.wording import counted

PHASES = ("training", "decoding")
DEFAULT_TOKENS = 32  # decoded in a round
UNTIMED = 2  # tokens that are decoded before the timed ones


@dataclass
class EntryFigures:
    """The measurements of one entry. A phase that failed has a reason instead of figures."""

    name: str
    model: str
    warm: dict[str, Reply] = field(default_factory=dict)  # by phase, before the rounds
    rounds: dict[str, dict[int, Reply]] = field(default_factory=lambda: defaultdict(dict))
    failed: dict[str, str] = field(default_factory=dict)

    def spread(self, phase: str, what: str = "rate") -> Spread | None:
        """Over the rounds: "rate" is tokens per second, "cpu_rate" tokens per processor second; any
        other name is a figure of the answers."""
        answers = self.rounds[phase].values()
        if what in ("rate", "cpu_rate"):
            return rates(self.rounds[phase], "seconds" if what == "rate" else "cpu_seconds")
        return Spread.of(a[what] for a in answers if a.get(what) is not None)

    def ratio(self, base: EntryFigures, phase: str, clock: str = "seconds") -> Spread | None:
        """How many times as fast as `base`, within rounds that both have."""
        return speed_ratio(self.rounds[phase], base.rounds[phase], clock)


@dataclass(frozen=True)
class Speeds:
    """All results of a run. `products` are GFLOP/s of square matrix products by dtype."""

    figures: list[EntryFigures]
    base: str
    products: Mapping[str, Spread]
    machine: Mapping[str, Any]
    shape: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each entry: the medians with their spreads, as in `--json`."""
        base = next(f for f in self.figures if f.name == self.base)
        return [_row(figures, base, self.products) for figures in self.figures]


def measure(
    entries: Sequence[ResolvedEntry],
    log: MeasurementLog,
    *,
    repeats: int = 5,
    seconds: float = 0.5,
    tokens: int | None = None,
    warm: int = 2,
    notify: Notify = lambda line: None,
) -> Speeds:
    """Measure all entries: `repeats` rounds of training for `seconds` each, after `warm` steps,
    then as many rounds of writing `tokens` tokens from the middle of the context (None: the usual
    number, or what it has room for).

    Raises UsageError, before anything is measured, for more tokens than there is room for.
    """
    middle, tokens = _room(min(s.resolved.model.context for s in entries), tokens)
    training = [entry.with_dtype() for entry in entries]
    found = {s.name: EntryFigures(s.name, s.model) for s in entries}
    product_rates: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    machine = describe_machine()

    def products(number: int) -> None:
        for name, values in product_rates.items():
            values.append(product_rate(getattr(torch, name), seconds=0.2))
        latest = {name: values[-1] for name, values in product_rates.items()}
        log.add("machine", len(product_rates["float32"]), phase="machine", gflops=latest)

    for phase, in_phase in zip(PHASES, (training, list(entries)), strict=True):
        with ExitStack() as stack:
            processes = _start(stack, phase, in_phase, found, middle, warm, log, notify)

            def measure_round(process: ModelProcess, number: int, phase: str = phase) -> None:
                if phase == "training":
                    answer = process.ask("measure", seconds=seconds)
                else:
                    answer = process.ask("measure", position=middle, tokens=tokens)
                found[process.name].rounds[phase][number] = answer
                log.add(phase, process.name, number, phase=phase, name=process.name, **answer)
                rate = answer["tokens"] / answer["seconds"]
                notify(f"{phase} {number + 1}/{repeats}: {process.name} {rate:,.0f} tokens/s")

            def on_failure(name: str, reason: str, phase: str = phase) -> None:
                _failed(found[name], phase, reason, log, notify)

            run_rounds(
                processes, repeats, measure_round, on_failure,
                products if phase == "training" else None,
            )  # fmt: skip
    shape = entries[0].resolved
    return Speeds(
        list(found.values()),
        baseline_of(entries),
        {name: s for name, values in product_rates.items() if (s := Spread.of(values))},
        machine,
        {
            "layers": shape.model.layers,
            "width": shape.model.width,
            "context": shape.model.context,
            "vocabulary": shape.model.vocab_size,
            "rows": shape.training.batch_size,
            "repeats": repeats,
            "tokens": tokens,
        },
    )


def _room(context: int, tokens: int | None) -> tuple[int, int]:
    """The position where decoding starts, and the number of tokens."""
    middle = context // 2
    room = context - middle - UNTIMED
    if room < 1:
        raise UsageError(
            f"A context of {context} has no room for decoding from its middle.",
            next_step=f"Use --context {2 * UNTIMED + 1} or more.",
        )
    if tokens is not None and tokens > room:
        raise UsageError(
            f"A context of {context} has room for {counted(room, 'token')} from its middle, not "
            f"for {tokens}.",
            next_step=f"Use --tokens {room} or fewer, or a longer --context.",
        )
    return middle, min(DEFAULT_TOKENS, room) if tokens is None else tokens


def _start(
    stack: ExitStack,
    phase: str,
    entries: Sequence[ResolvedEntry],
    found: Mapping[str, EntryFigures],
    position: int,
    warm: int,
    log: MeasurementLog,
    notify: Notify,
) -> list[ModelProcess]:
    """A process for each entry, one after the other, each past its first steps."""
    processes = []
    for entry in entries:
        process = stack.enter_context(ModelProcess(entry.name, phase, entry.resolved))
        figures = found[entry.name]
        try:
            answer = process.ask("warm", **({"steps": warm} if phase == "training" else {}))
            if phase == "decoding":
                read = process.ask("read", position=position)
                rate = read["tokens"] / read["seconds"]
                answer |= {"state_bytes": read["state_bytes"], "prefill_rate": rate}
        except ModelProcessError as error:
            _failed(figures, phase, str(error), log, notify)
            continue
        figures.warm[phase] = answer
        log.add(phase, entry.name, "warm", phase=phase, name=entry.name, **answer)
        notify(f"{phase}: {entry.name} is warm after {answer['warm_seconds']:.1f} s")
        processes.append(process)
    return processes


def _failed(
    figures: EntryFigures, phase: str, reason: str, log: MeasurementLog, notify: Notify
) -> None:
    figures.failed[phase] = reason
    log.add(phase, figures.name, "failed", phase=phase, name=figures.name, failed=reason)
    notify(f"{phase}: {figures.name} failed: {reason}")


def _row(
    figures: EntryFigures, base: EntryFigures, products: Mapping[str, Spread]
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": figures.name, "model": figures.model}
    row["status"] = "failed" if figures.failed else "measured"
    if figures.failed:
        row["failed"] = dict(figures.failed)
    warm = figures.warm.get("training") or figures.warm.get("decoding") or {}
    row |= {key: warm.get(key) for key in ("parameters", "active_parameters")}
    for phase in PHASES:
        rate, warm = figures.spread(phase), figures.warm.get(phase, {})
        if rate is None:
            row[phase] = None
            continue
        answers = list(figures.rounds[phase].values())
        peak = figures.spread(phase, "peak_bytes")
        row[phase] = {
            "tokens_per_second": rate.to_dict(),
            "ratio": as_dict(figures.ratio(base, phase)),
            "cpu_ratio": as_dict(figures.ratio(base, phase, "cpu_seconds")),
            "tokens_per_cpu_second": as_dict(figures.spread(phase, "cpu_rate")),
            "peak_bytes": None if peak is None else int(peak.high),
            "before_bytes": answers[-1]["before_bytes"],
        }
        keys = ("dtype", "device", "threads", "build_seconds", "warm_seconds")
        row[phase] |= {key: warm[key] for key in keys}
    if row["training"] is not None:
        answers, warm = list(figures.rounds["training"].values()), figures.warm["training"]
        flops = warm["flops_per_token"]
        share = Spread.of(a["optimizer_seconds"] / a["seconds"] for a in answers)
        step = Spread.of(a["seconds"] / a["steps"] for a in answers)
        product = products.get(warm["dtype"])
        achieved = flops * row["training"]["tokens_per_second"]["median"] / 1e9
        row["training"] |= {
            "step_seconds": as_dict(step),
            "optimizer_share": as_dict(share),
            "first_step_seconds": warm["first_step_seconds"],
            "flops_per_token": flops,
            "gflops": achieved,
            "product_share": achieved / product.median
            if product is not None and warm["device"] == "cpu"
            else None,
        }
    if row["decoding"] is not None:
        warm = figures.warm["decoding"]
        row["decoding"] |= {k: warm[k] for k in ("state_bytes", "prefill_rate", "weight_bytes")}
    return row


# -- table, sentences and page --------------------------------------------------------------------

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
    parameters = row["parameters"]
    cells = [str(row["name"]), "–" if parameters is None else f"{parameters:,.0f}"]
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


def findings(speeds: Speeds) -> list[str]:
    """Sentences: which entry is fastest in training and decoding, which uses the least memory, and
    what failed. A difference within the spread of the rounds counts as none."""
    rows = speeds.rows()
    sentences = []
    for phase, what in zip(PHASES, ("trains", "decodes"), strict=True):
        for row in rows:
            found = row[phase]
            if found is None or row["name"] == speeds.base or found["ratio"] is None:
                continue
            ratio = found["ratio"]
            if ratio["count"] < 2:
                sentences.append(
                    f"{row['name']} {what} at {ratio['median']:.2f}x of {speeds.base}: one round "
                    "has no spread, so no verdict is given."
                )
            elif ratio["low"] <= 1 <= ratio["high"]:
                sentences.append(
                    f"{row['name']} {what} about as fast as {speeds.base}: "
                    f"{spread_text(ratio, '.2f', 'x')}, on both sides of 1."
                )
            else:
                side = "faster" if ratio["median"] > 1 else "slower"
                sentences.append(
                    f"{row['name']} {what} {side} than {speeds.base}: "
                    f"{spread_text(ratio, '.2f', 'x')}."
                )
    peaks = {r["name"]: r["training"]["peak_bytes"] for r in rows if r["training"]}
    known = {name: peak for name, peak in peaks.items() if peak is not None}
    if len(known) > 1:
        least = min(known, key=lambda name: known[name])
        sentences.append(
            f"{least} uses the least memory in training: {megabytes(known[least])} at its peak."
        )
    for row in rows:
        for phase, reason in row.get("failed", {}).items():
            sentences.append(f"{row['name']} failed in {phase}: {reason}")
    return sentences


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
        "Training and decoding speed of each model at one common shape: "
        f"{counted(shape['layers'], 'layer')}, "
        f"{shape['width']} wide, batches of {shape['rows']} x "
        f"{counted(shape['context'], 'token')}, "
        f"a vocabulary of {shape['vocabulary']:,}. Figures are medians of {shape['repeats']} "
        f"rounds, with minimum and maximum in brackets; in each round every model was measured in "
        f"turn, each in a process of its own. 2x means twice as fast as {speeds.base}.",
        {
            **speeds.machine,
            **{
                f"products_{n}": spread_text(s, ".0f", " GFLOP/s")
                for n, s in speeds.products.items()
            },
        },
    )
    if sentences := findings(speeds):
        made.prose("\n".join(f"- {sentence}" for sentence in sentences), "Findings")
    columns, cells = table(speeds)
    made.table(
        "Speed and memory", columns, cells,
        "Share of products: the model's floating-point operations per second, by its own formula, "
        "as a share of what plain matrix products reached in the same rounds. Optimizer: its share "
        "of a step. Peak memory is that of the whole training process. Decoding starts in the "
        f"middle of the context and generates {counted(shape['tokens'], 'token')}.",
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
