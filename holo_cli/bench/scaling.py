"""`holo bench scaling`: time and memory per token of training against the context T.

Every step holds about the same number of tokens, so that what grows with T is the mechanism: at
twice the context there are half the rows. At each length all models are measured in turn, each in a
process of its own. A model that failed at a length is not tried at longer ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from holo_cli.bench.children import Answer, Child, ChildFailed, in_turn
from holo_cli.bench.lineup import Log, Spread, Subject, Tell, baseline_of, decided
from holo_cli.bench.machine import describe_machine
from holo_cli.bench.report import Report
from holo_cli.errors import UsageError

Curve = dict[int, Spread]  # by length


@dataclass
class Growth:
    """What was found of one subject, by length. `time` is seconds a token, `memory` bytes a token
    of the step: peak less what the libraries take, so weights and optimizer are in it."""

    name: str
    model: str
    time: Curve = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)  # sequences in a step
    failed: dict[int, str] = field(default_factory=dict)

    def medians(self) -> dict[int, float]:
        return {length: spread.median for length, spread in self.time.items()}


@dataclass(frozen=True)
class Scaling:
    """All of a run."""

    growths: list[Growth]
    base: str
    lengths: list[int]
    tokens: int
    machine: Mapping[str, Any]
    shape: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each subject and length, and one with each subject's exponents."""
        found: list[dict[str, Any]] = []
        for growth in self.growths:
            for length in self.lengths:
                found.append(_row(growth, length))
            found.append({"name": growth.name, "model": growth.model, **summary(growth)})
        return found

    def crossings(self) -> list[dict[str, Any]]:
        """Where the curves of time cross: {"faster", "slower", "length"}, for lengths above."""
        found = []
        for i, a in enumerate(self.growths):
            for b in self.growths[i + 1 :]:
                for length, a_is_faster in crossings(a.medians(), b.medians()):
                    first, second = (a.name, b.name) if a_is_faster else (b.name, a.name)
                    found.append({"faster": first, "slower": second, "length": round(length)})
        return found


def measure(
    subjects: Sequence[Subject],
    log: Log,
    *,
    lengths: Sequence[int],
    tokens: int | None = None,
    repeats: int = 3,
    seconds: float = 0.3,
    warm: int = 1,
    tell: Tell = lambda line: None,
) -> Scaling:
    """Measure all subjects at all lengths; `tokens` a step (None: the longest length).

    Raises UsageError for lengths that a model's config refuses, before anything is measured.
    """
    lengths = sorted(set(lengths))
    if len(lengths) < 2 or lengths[0] < 2:
        raise UsageError(
            "A curve needs two lengths at least, each of two tokens at least.",
            next_step="For example: --lengths 128,256,512",
        )
    step = max(tokens or lengths[-1], lengths[-1])
    growths = {s.name: Growth(s.name, s.model) for s in subjects}
    at_length = {
        length: [_at(decided(s), length, step) for s in subjects] for length in lengths
    }  # refuses here what cannot be
    for length in lengths:
        lined_up = [s for s in at_length[length] if not growths[s.name].failed]
        answers = _measure_length(lined_up, growths, length, repeats, seconds, warm, log, tell)
        for name, found in answers.items():
            if not found:
                continue
            growth = growths[name]
            growth.time[length] = _needed(Spread.of(a["seconds"] / a["tokens"] for a in found))
            per_step = found[-1]["tokens"] / found[-1]["steps"]
            growth.rows[length] = round(per_step / length)
            peak, before = found[-1]["peak_bytes"], found[-1]["before_bytes"]
            if peak is not None and before is not None:
                growth.memory[length] = (peak - before) / per_step
    shape = subjects[0].resolved.model
    return Scaling(
        list(growths.values()), baseline_of(subjects), list(lengths), step, describe_machine(),
        {"layers": shape.layers, "width": shape.width, "vocabulary": shape.vocab_size,
         "repeats": repeats},
    )  # fmt: skip


def _at(subject: Subject, length: int, tokens: int) -> Subject:
    rows = max(1, tokens // length)
    return subject.with_settings({"model.context": length, "training.batch_size": rows})


def _measure_length(
    subjects: Sequence[Subject],
    growths: Mapping[str, Growth],
    length: int,
    repeats: int,
    seconds: float,
    warm: int,
    log: Log,
    tell: Tell,
) -> dict[str, list[Answer]]:
    answers: dict[str, list[Answer]] = defaultdict(list)

    def failed(name: str, reason: str) -> None:
        growths[name].failed[length] = reason
        answers.pop(name, None)
        log.add(length, name, "failed", name=name, length=length, failed=reason)
        tell(f"{name} failed at {length} tokens: {reason}")

    def work(child: Child, number: int) -> None:
        answer = child.ask("measure", seconds=seconds)
        answers[child.name].append(answer)
        log.add(length, child.name, number, name=child.name, length=length, **answer)

    with ExitStack() as stack:
        children = []
        for subject in subjects:
            child = stack.enter_context(Child(subject.name, "training", subject.resolved))
            try:
                answer = child.ask("warm", steps=warm)
            except ChildFailed as error:
                failed(subject.name, str(error))
                continue
            log.add(length, subject.name, "warm", name=subject.name, length=length, **answer)
            children.append(child)
        in_turn(children, repeats, work, lambda child, reason: failed(child.name, reason))
    for name, found in answers.items():
        middle = _needed(Spread.of(a["seconds"] / a["tokens"] for a in found)).median
        tell(f"{length} tokens: {name} {middle * 1e6:,.1f} microseconds a token")
    return answers


def _needed(spread: Spread | None) -> Spread:
    assert spread is not None, "every answer has its seconds"
    return spread


# -- what curves say ------------------------------------------------------------------------------


def exponent(curve: Mapping[int, float]) -> float | None:
    """p of y = a T^p by least squares on logarithms; None of fewer than two points.

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
    `a` lies below beyond it)."""
    shared = sorted(a.keys() & b.keys())
    gaps = [(math.log(x), math.log(a[x]) - math.log(b[x])) for x in shared]
    found = []
    for (x, gap), (next_x, next_gap) in pairwise(gaps):
        if gap * next_gap < 0:
            share = gap / (gap - next_gap)
            found.append((math.exp(x + share * (next_x - x)), next_gap < 0))
    return found


def summary(growth: Growth) -> dict[str, Any]:
    """Exponents over all lengths and over the last two, and the growth from first to last."""
    medians = growth.medians()
    lengths = sorted(medians)
    last = {length: medians[length] for length in lengths[-2:]}
    return {
        "status": "failed" if growth.failed else "measured",
        "exponent": exponent(medians),
        "last_exponent": exponent(last),
        "growth": medians[lengths[-1]] / medians[lengths[0]] if len(lengths) > 1 else None,
        "from": lengths[0] if lengths else None,
        "to": lengths[-1] if lengths else None,
        "memory_exponent": exponent(growth.memory),
    }


def _row(growth: Growth, length: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": growth.name, "model": growth.model, "length": length}
    if length not in growth.time:
        reason = growth.failed.get(length)
        earlier = min(growth.failed, default=length)
        return row | {
            "status": "failed" if reason else "not run",
            "reason": reason or f"failed at {earlier} tokens already",
        }
    return row | {
        "status": "measured",
        "rows": growth.rows[length],
        "seconds_per_token": growth.time[length].to_dict(),
        "bytes_per_token": growth.memory.get(length),
    }


# -- for a reader ---------------------------------------------------------------------------------


def table(scaling: Scaling) -> tuple[list[str], list[list[str]]]:
    """Microseconds a token by length, then the exponents."""
    columns = ["Model", *(f"T {n:,}" for n in scaling.lengths), "Growth", "Exponent", "At the end"]
    rows = []
    for growth in scaling.growths:
        found = summary(growth)
        cells = [
            f"{growth.time[n].median * 1e6:,.1f}" if n in growth.time else _row(growth, n)["status"]
            for n in scaling.lengths
        ]
        rows.append(
            [growth.name, *cells, _number(found["growth"], "x"), _number(found["exponent"]),
             _number(found["last_exponent"])]
        )  # fmt: skip
    return columns, rows


def _number(value: float | None, unit: str = "") -> str:
    return "–" if value is None else f"{value:.2f}{unit}"


def findings(scaling: Scaling) -> list[str]:
    """Sentences: how each grows, where they cross, and what failed."""
    base = next(g for g in scaling.growths if g.name == scaling.base)
    said = []
    for growth in scaling.growths:
        found = summary(growth)
        if found["growth"] is not None:
            said.append(
                f"{growth.name}: a token takes {found['growth']:.2f} times as long at "
                f"{found['to']:,} as at {found['from']:,} tokens (T to the power of "
                f"{found['exponent']:.2f} over all lengths, {found['last_exponent']:.2f} between "
                "the last two)."
            )
        for length, reason in growth.failed.items():
            said.append(f"{growth.name} failed at {length:,} tokens: {reason}.")
    for crossing in scaling.crossings():
        said.append(
            f"{crossing['faster']} is the faster of the two beyond about {crossing['length']:,} "
            f"tokens, {crossing['slower']} before."
        )
    crossed = [{c["faster"], c["slower"]} for c in scaling.crossings()]
    for growth in scaling.growths:
        shared = growth.time.keys() & base.time.keys()
        if growth is base or {growth.name, base.name} in crossed or not shared:
            continue
        last = max(shared)
        ratio = base.time[last].median / growth.time[last].median
        side = "faster" if ratio > 1 else "slower"
        said.append(
            f"{growth.name} is {side} than {base.name} at every length; at {last:,} tokens it is "
            f"{ratio:.2f} times as fast."
        )
    return said


def report(scaling: Scaling, title: str = "Scaling") -> Report:
    """The page."""
    shape = scaling.shape
    made = Report(
        title,
        f"How the cost of a training step grows with the context: {shape['layers']} layers, "
        f"{shape['width']} wide, about {scaling.tokens:,} tokens in every step. Medians of "
        f"{shape['repeats']} rounds; at each length all models were measured in turn, each in a "
        "process of its own.",
        scaling.machine,
    )
    made.prose("\n".join(f"- {sentence}" for sentence in findings(scaling)), "In short")
    columns, rows = table(scaling)
    made.table(
        "Microseconds a token", columns, rows,
        "Growth: the last length against the first. Exponent: p of T to the power of p, fitted on "
        "logarithms over all lengths, and between the last two.",
    )  # fmt: skip
    made.plot(
        "Time", [_time_trace(g) for g in scaling.growths if g.time],
        _axes("Microseconds a token"),
        "Forward, backward and update. Both axes are logarithmic: a straight line is a power of T.",
    )  # fmt: skip
    with_memory = [g for g in scaling.growths if g.memory]
    if with_memory:
        made.plot(
            "Memory", [_memory_trace(g) for g in with_memory], _axes("Bytes a token of the step"),
            "Peak resident memory of the training process less what the libraries take, divided by "
            "the tokens of a step; weights and the optimizer's state are in it.",
        )  # fmt: skip
    return made


def _time_trace(growth: Growth) -> dict[str, Any]:
    bars = [spread.bars() for spread in growth.time.values()]
    return {
        "name": growth.name,
        "x": list(growth.time),
        "y": [spread.median * 1e6 for spread in growth.time.values()],
        "error_y": {
            "type": "data",
            "array": [up * 1e6 for up, _ in bars],
            "arrayminus": [down * 1e6 for _, down in bars],
        },
    }


def _memory_trace(growth: Growth) -> dict[str, Any]:
    return {"name": growth.name, "x": list(growth.memory), "y": list(growth.memory.values())}


def _axes(title: str) -> dict[str, Any]:
    return {
        "xaxis": {"type": "log", "title": {"text": "Context T, tokens"}, "dtick": math.log10(2)},
        "yaxis": {"type": "log", "title": {"text": title}},
    }
