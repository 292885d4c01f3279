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

from holo_cli.bench.machine import describe_machine, product_rate
from holo_cli.bench.speed.measurements import (
    MeasurementLog,
    Notify,
    ResolvedEntry,
    Spread,
    as_dict,
    baseline_of,
    rates,
    speed_ratio,
)  # fmt: skip
from holo_cli.bench.speed.model_process import Answer, ModelProcess, ModelProcessError, run_rounds
from holo_cli.errors import UsageError

PHASES = ("training", "decoding")
DEFAULT_TOKENS = 32  # decoded in a round
UNTIMED = 2  # tokens that are decoded before the timed ones


@dataclass
class Figures:
    """The measurements of one entry. A phase that failed has a reason instead of figures."""

    name: str
    model: str
    warm: dict[str, Answer] = field(default_factory=dict)  # by phase, before the rounds
    rounds: dict[str, dict[int, Answer]] = field(default_factory=lambda: defaultdict(dict))
    failed: dict[str, str] = field(default_factory=dict)

    def spread(self, phase: str, what: str = "rate") -> Spread | None:
        """Over the rounds: "rate" is tokens per second, "cpu_rate" tokens per processor second; any
        other name is a figure of the answers."""
        answers = self.rounds[phase].values()
        if what in ("rate", "cpu_rate"):
            return rates(self.rounds[phase], "seconds" if what == "rate" else "cpu_seconds")
        return Spread.of(a[what] for a in answers if a.get(what) is not None)

    def ratio(self, base: Figures, phase: str, clock: str = "seconds") -> Spread | None:
        """How many times as fast as `base`, within rounds that both have."""
        return speed_ratio(self.rounds[phase], base.rounds[phase], clock)


@dataclass(frozen=True)
class Speeds:
    """All results of a run. `products` are GFLOP/s of square matrix products by dtype."""

    figures: list[Figures]
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
    found = {s.name: Figures(s.name, s.model) for s in entries}
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
            f"A context of {context} has room for {room} tokens from its middle, not for {tokens}.",
            next_step=f"Use --tokens {room} or fewer, or a longer --context.",
        )
    return middle, min(DEFAULT_TOKENS, room) if tokens is None else tokens


def _start(
    stack: ExitStack,
    phase: str,
    entries: Sequence[ResolvedEntry],
    found: Mapping[str, Figures],
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


def _failed(figures: Figures, phase: str, reason: str, log: MeasurementLog, notify: Notify) -> None:
    figures.failed[phase] = reason
    log.add(phase, figures.name, "failed", phase=phase, name=figures.name, failed=reason)
    notify(f"{phase}: {figures.name} failed: {reason}")


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
            "ratio": as_dict(figures.ratio(base, phase)),
            "cpu_ratio": as_dict(figures.ratio(base, phase, "cpu_seconds")),
            "tokens_per_cpu_second": as_dict(figures.spread(phase, "cpu_rate")),
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
