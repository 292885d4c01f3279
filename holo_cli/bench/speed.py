"""`holo bench speed`: how fast each model trains and writes at one common shape, and what it holds.

Every model lives in a process of its own and is measured in turn, round after round, so that what
else happens on the machine falls on all alike. A ratio is taken within a round, and the median is
over rounds. The machine's product rate is measured before each round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from holo_cli.bench.children import Answer, Child, ChildFailed, in_turn
from holo_cli.bench.lineup import (
    Log,
    Spread,
    Subject,
    Tell,
    baseline_of,
    decided,
    megabytes,
    spread_text,
)  # fmt: skip
from holo_cli.bench.machine import describe_machine, product_rate
from holo_cli.bench.report import Report
from holo_cli.errors import UsageError

PHASES = ("training", "decoding")
USUAL_TOKENS = 32  # written in a round
UNTIMED = 2  # tokens that the probe writes before those


@dataclass
class Figures:
    """What was found of one subject. A phase that failed has a reason instead of figures."""

    name: str
    model: str
    warm: dict[str, Answer] = field(default_factory=dict)  # by phase, before the rounds
    rounds: dict[str, dict[int, Answer]] = field(default_factory=lambda: defaultdict(dict))
    failed: dict[str, str] = field(default_factory=dict)

    def spread(self, phase: str, what: str = "rate") -> Spread | None:
        """Over the rounds: "rate" is tokens a second, "cpu_rate" tokens a processor second; any
        other name is a figure of the answers."""
        answers = self.rounds[phase].values()
        if what == "rate":
            return Spread.of(a["tokens"] / a["seconds"] for a in answers)
        if what == "cpu_rate":
            return Spread.of(a["tokens"] / max(a["cpu_seconds"], 1e-9) for a in answers)
        return Spread.of(a[what] for a in answers if a.get(what) is not None)

    def ratio(self, base: Figures, phase: str, clock: str = "seconds") -> Spread | None:
        """How many times as fast as `base`, within rounds that both have."""
        mine, other = self.rounds[phase], base.rounds[phase]
        return Spread.of(
            (mine[r]["tokens"] / mine[r][clock]) / (other[r]["tokens"] / other[r][clock])
            for r in mine.keys() & other.keys()
            if mine[r][clock] > 0 and other[r][clock] > 0
        )


@dataclass(frozen=True)
class Speeds:
    """All of a run. `products` are GFLOP/s of square matrix products by dtype."""

    figures: list[Figures]
    base: str
    products: Mapping[str, Spread]
    machine: Mapping[str, Any]
    shape: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One row a subject: the medians with their spreads, as `--json` has them."""
        base = next(f for f in self.figures if f.name == self.base)
        return [_row(figures, base, self.products) for figures in self.figures]


def measure(
    subjects: Sequence[Subject],
    log: Log,
    *,
    repeats: int = 5,
    seconds: float = 0.5,
    tokens: int | None = None,
    warm: int = 2,
    tell: Tell = lambda line: None,
) -> Speeds:
    """Measure all subjects: `repeats` rounds of training for `seconds` each, after `warm` steps,
    then as many rounds of writing `tokens` tokens from the middle of the context (None: the usual
    number, or what it has room for).

    Raises UsageError, before anything is measured, for more tokens than there is room for.
    """
    middle, tokens = _room(min(s.resolved.model.context for s in subjects), tokens)
    training = [decided(subject) for subject in subjects]
    found = {s.name: Figures(s.name, s.model) for s in subjects}
    rates: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    machine = describe_machine()

    def products(number: int) -> None:
        for name, values in rates.items():
            values.append(product_rate(getattr(torch, name), seconds=0.2))
        latest = {name: values[-1] for name, values in rates.items()}
        log.add("machine", len(rates["float32"]), phase="machine", gflops=latest)

    for phase, lined_up in zip(PHASES, (training, list(subjects)), strict=True):
        with ExitStack() as stack:
            children = _start(stack, phase, lined_up, found, middle, warm, log, tell)

            def work(child: Child, number: int, phase: str = phase) -> None:
                if phase == "training":
                    answer = child.ask("measure", seconds=seconds)
                else:
                    answer = child.ask("measure", position=middle, tokens=tokens)
                found[child.name].rounds[phase][number] = answer
                log.add(phase, child.name, number, phase=phase, name=child.name, **answer)
                rate = answer["tokens"] / answer["seconds"]
                tell(f"{phase} {number + 1}/{repeats}: {child.name} {rate:,.0f} tokens/s")

            def failed(child: Child, reason: str, phase: str = phase) -> None:
                _failed(found[child.name], phase, reason, log, tell)

            in_turn(children, repeats, work, failed, products if phase == "training" else None)
    shape = subjects[0].resolved
    return Speeds(
        list(found.values()),
        baseline_of(subjects),
        {name: s for name, values in rates.items() if (s := Spread.of(values))},
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
    """Where writing begins and how many tokens are written."""
    middle = context // 2
    room = context - middle - UNTIMED
    if room < 1:
        raise UsageError(
            f"A context of {context} has no room to write in from its middle.",
            next_step=f"Use --context {2 * UNTIMED + 1} or more.",
        )
    if tokens is not None and tokens > room:
        raise UsageError(
            f"A context of {context} has room for {room} tokens from its middle, not for {tokens}.",
            next_step=f"Use --tokens {room} or fewer, or a longer --context.",
        )
    return middle, min(USUAL_TOKENS, room) if tokens is None else tokens


def _start(
    stack: ExitStack,
    phase: str,
    subjects: Sequence[Subject],
    found: Mapping[str, Figures],
    position: int,
    warm: int,
    log: Log,
    tell: Tell,
) -> list[Child]:
    """A process for each subject, one after the other, each past its first steps."""
    children = []
    for subject in subjects:
        child = stack.enter_context(Child(subject.name, phase, subject.resolved))
        figures = found[subject.name]
        try:
            answer = child.ask("warm", **({"steps": warm} if phase == "training" else {}))
            if phase == "decoding":
                read = child.ask("read", position=position)
                rate = read["tokens"] / read["seconds"]
                answer |= {"state_bytes": read["state_bytes"], "prefill_rate": rate}
        except ChildFailed as error:
            _failed(figures, phase, str(error), log, tell)
            continue
        figures.warm[phase] = answer
        log.add(phase, subject.name, "warm", phase=phase, name=subject.name, **answer)
        tell(f"{phase}: {subject.name} is warm after {answer['warm_seconds']:.1f} s")
        children.append(child)
    return children


def _failed(figures: Figures, phase: str, reason: str, log: Log, tell: Tell) -> None:
    figures.failed[phase] = reason
    log.add(phase, figures.name, "failed", phase=phase, name=figures.name, failed=reason)
    tell(f"{phase}: {figures.name} failed: {reason}")


def _row(figures: Figures, base: Figures, products: Mapping[str, Spread]) -> dict[str, Any]:
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
            "ratio": _dict(figures.ratio(base, phase)),
            "cpu_ratio": _dict(figures.ratio(base, phase, "cpu_seconds")),
            "tokens_per_cpu_second": _dict(figures.spread(phase, "cpu_rate")),
            "peak_bytes": None if peak is None else int(peak.high),
            "before_bytes": answers[-1]["before_bytes"],
            "dtype": warm["dtype"],
            "device": warm["device"],
            "threads": warm["threads"],
            "build_seconds": warm["build_seconds"],
            "warm_seconds": warm["warm_seconds"],
        }
    if row["training"] is not None:
        answers, warm = list(figures.rounds["training"].values()), figures.warm["training"]
        flops = warm["flops_per_token"]
        share = Spread.of(a["optimizer_seconds"] / a["seconds"] for a in answers)
        step = Spread.of(a["seconds"] / a["steps"] for a in answers)
        product = products.get(warm["dtype"])
        achieved = flops * row["training"]["tokens_per_second"]["median"] / 1e9
        row["training"] |= {
            "step_seconds": _dict(step),
            "optimizer_share": _dict(share),
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


def _dict(spread: Spread | None) -> dict[str, float | int] | None:
    return None if spread is None else spread.to_dict()


# -- for a reader ---------------------------------------------------------------------------------

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
    """Sentences: who is fastest at what, who holds least, and what failed. A difference within the
    spread of the rounds is called none."""
    rows = speeds.rows()
    said = []
    for phase, what in zip(PHASES, ("trains", "writes"), strict=True):
        for row in rows:
            found = row[phase]
            if found is None or row["name"] == speeds.base or found["ratio"] is None:
                continue
            ratio = found["ratio"]
            if ratio["count"] < 2:
                said.append(
                    f"{row['name']} {what} at {ratio['median']:.2f}x of {speeds.base}: one round "
                    "has no spread, so nothing is claimed."
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
        said.append(f"{least} holds least in training: {megabytes(known[least])} at its peak.")
    for row in rows:
        for phase, reason in row.get("failed", {}).items():
            said.append(f"{row['name']} failed in {phase}: {reason}")
    return said


def busy_note(speeds: Speeds) -> str:
    """A warning where processor time and clock disagree: others were using the machine."""
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
        f"While training was measured the processors were given to it {share.median:.0%} of the "
        "time: the machine was shared, or the models left threads waiting. Ratios by processor "
        "time, in the page's second table, say more."
    )


def report(speeds: Speeds, title: str = "Speed") -> Report:
    """The page."""
    shape, rows = speeds.shape, speeds.rows()
    made = Report(
        title,
        f"How fast each model trains and writes at one common shape: {shape['layers']} layers, "
        f"{shape['width']} wide, batches of {shape['rows']} x {shape['context']} tokens, "
        f"a vocabulary of {shape['vocabulary']:,}. Figures are medians of {shape['repeats']} "
        f"rounds, with least and most in brackets; in each round every model was measured in turn, "
        f"each in a process of its own. 2x means twice as fast as {speeds.base}.",
        {**speeds.machine, **{f"products_{n}": _gflops(s) for n, s in speeds.products.items()}},
    )
    if sentences := findings(speeds):
        made.prose("\n".join(f"- {sentence}" for sentence in sentences), "In short")
    columns, cells = table(speeds)
    made.table(
        "Speed and memory", columns, cells,
        "Share of products: the model's floating-point operations a second, by its own formula, of "
        "what plain matrix products reached in the same rounds. Optimizer: its part of a step. "
        "Peak memory: of the whole training process. Decoding starts in the middle of the context "
        f"and writes {shape['tokens']} tokens.",
    )  # fmt: skip
    if note := busy_note(speeds):
        made.prose(note)
    for phase, what in zip(PHASES, ("Training", "Decoding"), strict=True):
        bars = [_bar(row["name"], row[phase], i) for i, row in enumerate(rows) if row[phase]]
        made.plot(f"{what}, tokens a second", bars, BARS)
    made.table(
        "By processor time, and before the first round",
        ["Model", "Training, by processor time", "Decoding, by processor time", "Building, s",
         "First step, s", "Warm-up, s", "Memory before the model"],
        [_details(row) for row in rows],
        "Building, the first step and the warm-up (first step and compilation in it) are in none "
        "of the figures above.",
    )  # fmt: skip
    return made


BARS = {"yaxis": {"title": {"text": "Tokens/s"}, "rangemode": "tozero"}, "showlegend": False}


def _bar(name: str, figures: Mapping[str, Any], number: int) -> dict[str, Any]:
    rate = figures["tokens_per_second"]
    error = {
        "type": "data",
        "array": [rate["high"] - rate["median"]],
        "arrayminus": [rate["median"] - rate["low"]],
    }
    return {"type": "bar", "name": name, "x": [name], "y": [rate["median"]], "error_y": error}


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
