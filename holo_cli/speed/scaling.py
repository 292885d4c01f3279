"""`holo bench scaling`: training time and memory per token by context length T.

Every step holds about the same number of tokens, so that what grows with T is the mechanism: at
twice the context there are half the rows. A round goes over all lengths, up in one and down in the
next, and at each length over all models, each in a process of its own that ends before the next
length. So lengths are compared within a round: a machine that drifts from minute to minute moves a
round as a whole, and growth is the median of the rounds' own ratios. A model that failed at a
length is not tried there or at longer ones again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from holo_cli.errors import UsageError
from holo_cli.experiment.machine import describe_machine
from holo_cli.speed.measurements import (
    MeasurementLog,
    Notify,
    ResolvedEntry,
    Spread,
    baseline_of,
)
from holo_cli.speed.model_process import ModelProcess, ModelProcessError, Reply, rotated
from holo_cli.wording import counted


@dataclass
class Growth:
    """The measurements of one entry by length and round, and why a length failed."""

    name: str
    model: str
    answers: dict[int, dict[int, Reply]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def lengths(self) -> list[int]:
        """Lengths that were measured in every round, in ascending order."""
        return sorted(n for n in self.answers if n not in self.failed)

    def time(self, length: int) -> Spread:
        """Seconds per token."""
        return _spread(a["seconds"] / a["tokens"] for a in self.answers[length].values())

    def medians(self) -> dict[int, float]:
        """Seconds per token by length."""
        return {length: self.time(length).median for length in self.lengths()}

    def rows(self, length: int) -> int:
        """Sequences in a step."""
        answer = next(iter(self.answers[length].values()))
        return round(answer["tokens"] / answer["steps"] / length)

    def memory(self, length: int) -> float | None:
        """Bytes per token of a step: peak minus what the libraries use, so with weights and
        optimizer. None where the system does not report it."""
        found = [
            (a["peak_bytes"] - a["before_bytes"]) / (a["tokens"] / a["steps"])
            for a in self.answers[length].values()
            if a["peak_bytes"] is not None and a["before_bytes"] is not None
        ]
        return statistics.median(found) if found else None

    def memories(self) -> dict[int, float]:
        found = {length: self.memory(length) for length in self.lengths()}
        return {length: value for length, value in found.items() if value is not None}

    def growth(self, seconds: str = "seconds") -> Spread | None:
        """Time per token at the last length relative to the first, by round; with "cpu_seconds"
        processor time. None with fewer than two lengths."""
        lengths = self.lengths()
        if len(lengths) < 2:
            return None
        return _ratio(self.answers[lengths[-1]], self.answers[lengths[0]], seconds)

    def speed_up(self, other: Growth, length: int) -> Spread:
        """How many times as fast as another entry at a length that both have, by round."""
        found = _ratio(other.answers[length], self.answers[length], "seconds")
        assert found is not None, "rounds are the same for all"
        return found

    def sides(self, other: Growth) -> dict[int, int]:
        """By length that both have: 1: faster in every round, -1: slower in every round, else 0."""
        found = {}
        for length in sorted({*self.lengths()} & {*other.lengths()}):
            ratio = self.speed_up(other, length)
            found[length] = 1 if ratio.low > 1 else -1 if ratio.high < 1 else 0
        return found


def _ratio(above: Mapping[int, Reply], below: Mapping[int, Reply], seconds: str) -> Spread | None:
    """Time of a token in one against another, in the rounds that both have."""
    ratios = []
    for number in sorted(above.keys() & below.keys()):
        a, b = above[number], below[number]
        if b[seconds] > 0:
            ratios.append(a[seconds] / a["tokens"] * b["tokens"] / b[seconds])
    return Spread.of(ratios)


@dataclass(frozen=True)
class Scaling:
    """All results of a run."""

    growths: list[Growth]
    base: str
    lengths: list[int]
    tokens: int
    machine: Mapping[str, Any]
    shape: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each entry and length, and a row with each entry's exponents."""
        found: list[dict[str, Any]] = []
        for growth in self.growths:
            for length in self.lengths:
                found.append(length_row(growth, length))
            found.append({"name": growth.name, "model": growth.model, **growth_summary(growth)})
        return found

    def crossings(self) -> list[dict[str, Any]]:
        """Where the curves of time cross: {"faster", "slower", "length"}, beyond that length.

        Only between lengths at which first one entry and then the other was faster in every round:
        curves within each other's noise have no definite crossing.
        """
        found = []
        for i, a in enumerate(self.growths):
            for b in self.growths[i + 1 :]:
                sure = [length for length, side in a.sides(b).items() if side]
                mine, others = a.medians(), b.medians()
                for length, a_is_faster in crossings(
                    {n: mine[n] for n in sure}, {n: others[n] for n in sure}
                ):
                    first, second = (a.name, b.name) if a_is_faster else (b.name, a.name)
                    found.append({"faster": first, "slower": second, "length": round(length)})
        return found


def measure(
    entries: Sequence[ResolvedEntry],
    log: MeasurementLog,
    *,
    lengths: Sequence[int],
    tokens: int | None = None,
    repeats: int = 3,
    seconds: float = 0.3,
    warm: int = 1,
    notify: Notify = lambda line: None,
) -> Scaling:
    """Measure all entries at all lengths, with `tokens` per step (None: the longest length).

    Raises UsageError for lengths that a model's config refuses, before anything is measured.
    """
    lengths = sorted(set(lengths))
    if len(lengths) < 2 or lengths[0] < 2:
        raise UsageError(
            "A curve needs at least two lengths, each of at least two tokens.",
            next_step="For example: --lengths 128,256,512",
        )
    step = max(tokens or lengths[-1], lengths[-1])
    growths = {s.name: Growth(s.name, s.model) for s in entries}
    at_length = {
        length: [_at(s.with_dtype(), length, step) for s in entries] for length in lengths
    }  # raises for lengths that a config rejects
    visit = _Visit(growths, log, notify, seconds=seconds, warm=warm)
    for number in range(repeats):
        for length in lengths if number % 2 == 0 else reversed(lengths):
            at_this_length = [
                s for s in at_length[length]
                if length < min(growths[s.name].failed, default=length + 1)
            ]  # fmt: skip
            visit(length, number, rotated(at_this_length, number))
    shape = entries[0].resolved.model
    return Scaling(
        list(growths.values()), baseline_of(entries), list(lengths), step, describe_machine(),
        {"layers": shape.layers, "width": shape.width, "vocabulary": shape.vocab_size,
         "repeats": repeats},
    )  # fmt: skip


def _at(entry: ResolvedEntry, length: int, tokens: int) -> ResolvedEntry:
    rows = max(1, tokens // length)
    return entry.with_settings({"model.context": length, "training.batch_size": rows})


@dataclass
class _Visit:
    """One length in a round: all entries are warmed up first and then measured in turn."""

    growths: Mapping[str, Growth]
    log: MeasurementLog
    notify: Notify
    seconds: float
    warm: int

    def __call__(self, length: int, number: int, entries: Sequence[ResolvedEntry]) -> None:
        with ExitStack() as stack:
            processes = []
            for entry in entries:
                process = stack.enter_context(ModelProcess(entry.name, "training", entry.resolved))
                answer = self._ask(process, length, number, "warm", steps=self.warm)
                if answer is not None:
                    processes.append(process)
            for process in processes:
                answer = self._ask(process, length, number, "measure", seconds=self.seconds)
                if answer is not None:
                    self.growths[process.name].answers.setdefault(length, {})[number] = answer
                    each = answer["seconds"] / answer["tokens"]
                    self.notify(
                        f"Round {number + 1}, {counted(length, 'token')}: {process.name} "
                        f"{each * 1e6:,.1f} microseconds per token"
                    )

    def _ask(
        self, process: ModelProcess, length: int, number: int, call: str, **arguments: Any
    ) -> Reply | None:
        """The answer, or None after a failure; both are written to the log."""
        place = (length, process.name, number if call == "measure" else f"warm-{number}")
        about = {"name": process.name, "length": length, "round": number}
        try:
            answer = process.ask(call, **arguments)
        except ModelProcessError as error:
            self.growths[process.name].failed[length] = str(error)
            self.log.add(length, process.name, f"failed-{number}", **about, failed=str(error))
            self.notify(f"{process.name} failed at {counted(length, 'token')}: {error}")
            return None
        self.log.add(*place, **about, **answer)
        return answer


def _spread(values: Iterable[float]) -> Spread:
    found = Spread.of(values)
    assert found is not None, "the length was measured"
    return found


# -- curves ---------------------------------------------------------------------------------------


def exponent(curve: Mapping[int, float]) -> float | None:
    """p of y = a T^p by least squares on logarithms; None with fewer than two points.

    >>> exponent({1: 3.0, 2: 6.0, 4: 12.0})
    1.0
    """
    points = [(math.log(x), math.log(y)) for x, y in curve.items() if y > 0]
    if len(points) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)


def crossings(a: Mapping[int, float], b: Mapping[int, float]) -> list[tuple[float, bool]]:
    """Where two curves cross, by straight lines between points on logarithmic axes: (x, whether
    `a` is the lower one beyond it)."""
    shared = sorted(a.keys() & b.keys())
    gaps = [(math.log(x), math.log(a[x]) - math.log(b[x])) for x in shared]
    found = []
    for (x, gap), (next_x, next_gap) in pairwise(gaps):
        if gap * next_gap < 0:
            share = gap / (gap - next_gap)
            found.append((math.exp(x + share * (next_x - x)), next_gap < 0))
    return found


def growth_summary(growth: Growth) -> dict[str, Any]:
    """Exponents of the medians over all lengths and over the last two; growth from the first to the
    last length with its spread over rounds, by wall clock and by processor time."""
    medians = growth.medians()
    lengths = growth.lengths()
    by_clock, by_cpu = growth.growth(), growth.growth("cpu_seconds")
    last = {length: medians[length] for length in lengths[-2:]}
    return {
        "status": "failed" if growth.failed else "measured",
        "exponent": exponent(medians),
        "last_exponent": exponent(last),
        "growth": by_clock and by_clock.to_dict(),
        "cpu_growth": by_cpu and by_cpu.to_dict(),
        "from": lengths[0] if lengths else None,
        "to": lengths[-1] if lengths else None,
        "memory_exponent": exponent(growth.memories()),
    }


def length_row(growth: Growth, length: int) -> dict[str, Any]:
    """An entry at a length; a length that was not measured has the reason."""
    row: dict[str, Any] = {"name": growth.name, "model": growth.model, "length": length}
    if length not in growth.lengths():
        reason = growth.failed.get(length)
        earlier = min(growth.failed, default=length)
        return row | {
            "status": "failed" if reason else "not run",
            "reason": reason or f"failed at {counted(earlier, 'token')} already",
        }
    return row | {
        "status": "measured",
        "rows": growth.rows(length),
        "seconds_per_token": growth.time(length).to_dict(),
        "bytes_per_token": growth.memory(length),
    }
