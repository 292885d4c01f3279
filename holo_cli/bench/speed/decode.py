"""`holo bench decode`: tokens a second and bytes of state against the position in the text.

A model with a state of fixed size should be flat in both; one that keeps keys and values grows. The
speed is also held against the memory: one row must read every active weight and the whole state for
each token, so it cannot be faster than reading as many bytes is. That rate is measured in the same
rounds, by matrix-vector products over as many bytes. Ratios, of positions and of models, are taken
within a round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from holo_cli.bench.machine import describe_machine
from holo_cli.bench.report import Report
from holo_cli.bench.speed.measurements import (
    MeasurementLog,
    Notify,
    ResolvedEntry,
    Spread,
    baseline_of,
    error_bars,
    spread_text,
)
from holo_cli.bench.speed.model_process import Answer, ModelProcess, ModelProcessError, run_rounds
from holo_cli.bench.speed.step_benchmark import copy_rate, read_rate
from holo_cli.errors import UsageError

ROOM = 4  # tokens of a measurement beside those that are timed


@dataclass
class Writing:
    """What was found of one subject, by position and round."""

    name: str
    model: str
    warm: Answer = field(default_factory=dict)
    answers: dict[int, dict[int, Answer]] = field(default_factory=lambda: defaultdict(dict))
    reading: dict[int, Answer] = field(default_factory=dict)  # the prompt up to a position
    # bytes/s of the memory in the same rounds
    rates: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    failed: str = ""

    def speed(self, position: int) -> Spread | None:
        """Tokens a second from a position on."""
        return Spread.of(a["tokens"] / a["seconds"] for a in self.answers[position].values())

    def share(self, position: int) -> Spread | None:
        """Of what reading the same bytes allows, round by round."""
        nbytes = self.bytes_per_token(position)
        return Spread.of(
            a["tokens"] / a["seconds"] * nbytes / self.rates[position][number]
            for number, a in self.answers[position].items()
        )

    def bytes_per_token(self, position: int) -> int:
        """What one token reads: the active weights and the state."""
        return int(self.warm["weight_bytes"] + self.reading[position]["state_bytes"])

    def flatness(self, clock: str = "seconds") -> Spread | None:
        """Speed at the last position by speed at the first, round by round; with "cpu_seconds" in
        tokens a processor second. None of fewer than two positions."""
        known = [p for p in sorted(self.answers) if self.answers[p]]
        if len(known) < 2:
            return None
        return _times(self.answers[known[-1]], self.answers[known[0]], clock)

    def ratio(self, base: Writing, position: int, clock: str = "seconds") -> Spread | None:
        """How many times as fast as `base` at a position, within rounds that both have."""
        return _times(self.answers[position], base.answers[position], clock)


def _times(mine: Mapping[int, Answer], other: Mapping[int, Answer], clock: str) -> Spread | None:
    return Spread.of(
        (mine[r]["tokens"] / mine[r][clock]) / (other[r]["tokens"] / other[r][clock])
        for r in sorted(mine.keys() & other.keys())
        if mine[r][clock] > 0 and other[r][clock] > 0
    )


@dataclass(frozen=True)
class Decodings:
    """All of a run. `memory` are bytes a second of the machine: "read" and "copy"."""

    writings: list[Writing]
    base: str
    positions: list[int]
    memory: Mapping[str, Spread]
    machine: Mapping[str, Any]
    shape: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each subject and position."""
        return [_row(w, p, self.baseline) for w in self.writings for p in self.positions]

    @property
    def baseline(self) -> Writing:
        return next(w for w in self.writings if w.name == self.base)


def measure(
    subjects: Sequence[ResolvedEntry],
    log: MeasurementLog,
    *,
    positions: Sequence[int],
    tokens: int = 16,
    repeats: int = 3,
    probe_bytes: int = 1 << 28,
    notify: Notify = lambda line: None,
) -> Decodings:
    """Measure all subjects at all positions, in turn. The context is made to hold the last one.

    `probe_bytes` is the size of the machine's own probe, well beyond its caches.
    """
    positions = sorted(set(positions))
    if not positions or positions[0] < 1 or tokens < 1:
        raise UsageError(
            "Positions begin with 1, and at least one token is written from each.",
            next_step="For example: --positions 16,256,1024",
        )
    context = positions[-1] + tokens + ROOM
    subjects = [s.with_settings({"model.context": context}) for s in subjects]
    found = {s.name: Writing(s.name, s.model) for s in subjects}
    memory: dict[str, list[float]] = {"read": [], "copy": []}

    def failed(name: str, reason: str) -> None:
        found[name].failed = reason
        log.add(name, "failed", name=name, failed=reason)
        notify(f"{name} failed: {reason}")

    with ExitStack() as stack:
        children = []
        for subject in subjects:
            child = stack.enter_context(ModelProcess(subject.name, "decoding", subject.resolved))
            try:
                found[subject.name].warm = child.ask("warm")
            except ModelProcessError as error:
                failed(subject.name, str(error))
                continue
            log.add(subject.name, "warm", name=subject.name, **found[subject.name].warm)
            children.append(child)

        def work(child: ModelProcess, number: int) -> None:
            writing = found[child.name]
            for position in positions:
                if position not in writing.reading:
                    writing.reading[position] = child.ask("read", position=position)
                answer = child.ask("measure", position=position, tokens=tokens)
                rate = read_rate(writing.bytes_per_token(position), seconds=0.05)
                writing.answers[position][number] = answer
                writing.rates[position][number] = rate
                state = writing.reading[position]["state_bytes"]
                log.add(
                    child.name, position, number, name=child.name, position=position,
                    state_bytes=state, read_rate=rate, **answer,
                )  # fmt: skip
            speed = writing.speed(positions[-1])
            assert speed is not None
            notify(f"{number + 1}/{repeats}: {child.name} {speed.median:,.0f} tokens/s at the end")

        def probe(number: int) -> None:
            memory["read"].append(read_rate(probe_bytes))
            memory["copy"].append(copy_rate(probe_bytes))
            log.add("machine", number, read=memory["read"][-1], copy=memory["copy"][-1])

        run_rounds(children, repeats, work, failed, probe)
    shape = subjects[0].resolved.model
    return Decodings(
        list(found.values()), baseline_of(subjects), list(positions),
        {name: s for name, values in memory.items() if (s := Spread.of(values))},
        describe_machine(),
        {"layers": shape.layers, "width": shape.width, "vocabulary": shape.vocab_size,
         "tokens": tokens, "repeats": repeats},
    )  # fmt: skip


def _row(writing: Writing, position: int, base: Writing) -> dict[str, Any]:
    row: dict[str, Any] = {"name": writing.name, "model": writing.model, "position": position}
    speed, share = writing.speed(position), None
    if speed is None:
        return row | {"status": "failed", "reason": writing.failed or "not run"}
    share = writing.share(position)
    assert share is not None
    read = writing.reading[position]
    ratios = {
        "ratio": writing.ratio(base, position),
        "cpu_ratio": writing.ratio(base, position, "cpu_seconds"),
        "flatness": writing.flatness(),
        "cpu_flatness": writing.flatness("cpu_seconds"),
    }
    return row | {
        "status": "failed" if writing.failed else "measured",
        "tokens_per_second": speed.to_dict(),
        **{name: ratio and ratio.to_dict() for name, ratio in ratios.items()},
        "state_bytes": read["state_bytes"],
        "bytes_per_token": writing.bytes_per_token(position),
        "bandwidth_share": share.to_dict(),
        "prefill_tokens_per_second": read["tokens"] / read["seconds"],
        "peak_bytes": list(writing.answers[position].values())[-1]["peak_bytes"],
        "dtype": writing.warm["dtype"],
        "parameters": writing.warm["parameters"],
        "active_parameters": writing.warm["active_parameters"],
    }


# -- for a reader ---------------------------------------------------------------------------------


def table(decodings: Decodings) -> tuple[list[str], list[list[str]]]:
    """Tokens a second by position, state at both ends, flatness, share of the memory's rate, and
    the speed at the last position against the baseline's."""
    columns = [
        "Model", *(f"at {p:,}" for p in decodings.positions), "Last / first", "State",
        "Share of bandwidth", f"against {decodings.base}",
    ]  # fmt: skip
    rows = []
    for writing in decodings.writings:
        speeds = [writing.speed(p) for p in decodings.positions]
        cells = [f"{s.median:,.0f}" if s else "failed" for s in speeds]
        first, last = decodings.positions[0], decodings.positions[-1]
        states = [writing.reading[p]["state_bytes"] for p in (first, last) if p in writing.reading]
        share = writing.share(last) if writing.reading.get(last) else None
        rows.append(
            [writing.name, *cells, _ratio(writing.flatness()),
             " to ".join(f"{nbytes / 1e3:,.1f} kB" for nbytes in dict.fromkeys(states)) or "–",
             f"{share.median:.0%}" if share else "–",
             _ratio(writing.ratio(decodings.baseline, last))]
        )  # fmt: skip
    return columns, rows


def _ratio(ratio: Spread | None) -> str:
    return spread_text(None if ratio is None else ratio.to_dict(), ".2f", "x")


def by_processor(decodings: Decodings) -> tuple[list[str], list[list[str]]]:
    """The same ratios by the processors' time."""
    columns, last = ["Model", "Last / first", f"against {decodings.base}"], decodings.positions[-1]
    clock = "cpu_seconds"
    return columns, [
        [w.name, _ratio(w.flatness(clock)), _ratio(w.ratio(decodings.baseline, last, clock))]
        for w in decodings.writings
    ]


def busy_note(decodings: Decodings) -> str:
    """A warning where a model that was asked to write did not even get one processor."""
    share = Spread.of(
        answer["cpu_seconds"] / answer["seconds"]
        for w in decodings.writings
        if w.answers and w.warm["device"] == "cpu"
        for answers in w.answers.values()
        for answer in answers.values()
    )
    if share is None or share.median > 0.85:
        return ""
    return (
        f"While a model wrote it had a processor {share.median:.0%} of the time: the machine was "
        "shared. Ratios by processor time, in the page's second table, say more."
    )


def findings(decodings: Decodings) -> list[str]:
    """Sentences: speed, flatness and state of each."""
    said = []
    first, last = decodings.positions[0], decodings.positions[-1]
    for writing in decodings.writings:
        if writing.failed:
            said.append(f"{writing.name} failed: {writing.failed}.")
        speed, flat = writing.speed(last), writing.flatness()
        if speed is None or flat is None:
            continue
        grew = writing.reading[last]["state_bytes"] / max(1, writing.reading[first]["state_bytes"])
        held = "its state does not grow" if grew == 1 else f"its state grows {grew:,.1f} times"
        ratio = writing.ratio(decodings.baseline, last)
        against = ""
        if ratio is not None and writing.name != decodings.base:
            times = _by_round(ratio, ".2f")
            against = f", {times} times as fast as {decodings.base}"
        said.append(
            f"{writing.name} writes {speed.median:,.0f} tokens a second at position {last:,}"
            f"{against}; that is {_by_round(flat, '.0%')} of its speed at {first:,}, and {held}."
        )
    return said


def _by_round(ratio: Spread, form: str) -> str:
    """The median, and the range of the rounds where there were several."""
    around = f" ({ratio.low:{form}} to {ratio.high:{form}} by round)" if ratio.count > 1 else ""
    return f"{ratio.median:{form}}{around}"


def report(decodings: Decodings, title: str = "Decoding") -> Report:
    """The page."""
    shape = decodings.shape
    made = Report(
        title,
        f"How fast each model writes one row, and what it remembers, at different positions of a "
        f"text: {shape['layers']} layers, {shape['width']} wide, a vocabulary of "
        f"{shape['vocabulary']:,}. Medians of {shape['repeats']} rounds of {shape['tokens']} "
        "tokens; in each round all models were measured in turn, each in a process of its own.",
        {
            **decodings.machine,
            **{
                f"memory_{name}": f"{s.median / 1e9:.1f} GB/s ({s.low / 1e9:.1f} to "
                f"{s.high / 1e9:.1f})"
                for name, s in decodings.memory.items()
            },
        },
    )
    made.prose("\n".join(f"- {sentence}" for sentence in findings(decodings)), "In short")
    columns, rows = table(decodings)
    made.table(
        "Tokens a second", columns, rows,
        "Share of bandwidth: the bytes of active weights and state that are read a second, of "
        "what matrix-vector products over as many bytes reached in the same rounds, at the last "
        "position. A small model lies in the processor's caches, and so did that probe. Last / "
        f"first, and against {decodings.base} at the last position: medians of the rounds' own "
        "ratios, with least and most in brackets.",
    )  # fmt: skip
    if note := busy_note(decodings):
        made.prose(note)
    made.table("By processor time", *by_processor(decodings))
    measured = [w for w in decodings.writings if w.answers]
    made.plot("Speed", [_speed_trace(w) for w in measured], _axes("Tokens/s"))
    made.plot("State", [_state_trace(w) for w in measured], _axes("Bytes of state"))
    return made


def _speed_trace(writing: Writing) -> dict[str, Any]:
    spreads = {p: s for p in writing.answers if (s := writing.speed(p))}
    return {
        "name": writing.name,
        "x": list(spreads),
        "y": [spread.median for spread in spreads.values()],
        "error_y": error_bars(spreads.values()),
    }


def _state_trace(writing: Writing) -> dict[str, Any]:
    return {
        "name": writing.name,
        "x": list(writing.reading),
        "y": [read["state_bytes"] for read in writing.reading.values()],
    }


def _axes(title: str) -> dict[str, Any]:
    return {
        "xaxis": {"type": "log", "title": {"text": "Position, tokens"}},
        "yaxis": {"type": "log", "title": {"text": title}},
    }
