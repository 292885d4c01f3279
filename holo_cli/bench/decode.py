"""`holo bench decode`: tokens a second and bytes of state against the position in the text.

A model with a state of fixed size should be flat in both; one that keeps keys and values grows. The
speed is also held against the memory: one row must read every active weight and the whole state for
each token, so it cannot be faster than reading as many bytes is. That rate is measured in the same
rounds, by matrix-vector products over as many bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from holo_cli.bench.children import Answer, Child, ChildFailed, in_turn
from holo_cli.bench.lineup import Log, Spread, Subject, Tell, baseline_of
from holo_cli.bench.machine import describe_machine
from holo_cli.bench.probe import copy_rate, read_rate
from holo_cli.bench.report import Report
from holo_cli.errors import UsageError

ROOM = 4  # tokens of a measurement beside those that are timed


@dataclass
class Writing:
    """What was found of one subject, by position."""

    name: str
    model: str
    warm: Answer = field(default_factory=dict)
    answers: dict[int, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    reading: dict[int, Answer] = field(default_factory=dict)  # the prompt up to a position
    rates: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # bytes/s
    failed: str = ""

    def speed(self, position: int) -> Spread | None:
        """Tokens a second from a position on."""
        return Spread.of(a["tokens"] / a["seconds"] for a in self.answers[position])

    def share(self, position: int) -> Spread | None:
        """Of what reading the same bytes allows, round by round."""
        nbytes = self.bytes_per_token(position)
        return Spread.of(
            a["tokens"] / a["seconds"] * nbytes / rate
            for a, rate in zip(self.answers[position], self.rates[position], strict=True)
        )

    def bytes_per_token(self, position: int) -> int:
        """What one token reads: the active weights and the state."""
        return int(self.warm["weight_bytes"] + self.reading[position]["state_bytes"])

    def flatness(self) -> float | None:
        """Speed at the last position by speed at the first."""
        known = [p for p in sorted(self.answers) if self.answers[p]]
        first, last = (self.speed(p) for p in (known[0], known[-1])) if known else (None, None)
        return last.median / first.median if first and last and len(known) > 1 else None


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
        return [_row(w, p) for w in self.writings for p in self.positions]


def measure(
    subjects: Sequence[Subject],
    log: Log,
    *,
    positions: Sequence[int],
    tokens: int = 16,
    repeats: int = 3,
    probe_bytes: int = 1 << 28,
    tell: Tell = lambda line: None,
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
        tell(f"{name} failed: {reason}")

    with ExitStack() as stack:
        children = []
        for subject in subjects:
            child = stack.enter_context(Child(subject.name, "decoding", subject.resolved))
            try:
                found[subject.name].warm = child.ask("warm")
            except ChildFailed as error:
                failed(subject.name, str(error))
                continue
            log.add(subject.name, "warm", name=subject.name, **found[subject.name].warm)
            children.append(child)

        def work(child: Child, number: int) -> None:
            writing = found[child.name]
            for position in positions:
                if position not in writing.reading:
                    writing.reading[position] = child.ask("read", position=position)
                answer = child.ask("measure", position=position, tokens=tokens)
                rate = read_rate(writing.bytes_per_token(position), seconds=0.05)
                writing.answers[position].append(answer)
                writing.rates[position].append(rate)
                state = writing.reading[position]["state_bytes"]
                log.add(
                    child.name, position, number, name=child.name, position=position,
                    state_bytes=state, read_rate=rate, **answer,
                )  # fmt: skip
            speed = writing.speed(positions[-1])
            assert speed is not None
            tell(f"{number + 1}/{repeats}: {child.name} {speed.median:,.0f} tokens/s at the end")

        def probe(number: int) -> None:
            memory["read"].append(read_rate(probe_bytes))
            memory["copy"].append(copy_rate(probe_bytes))
            log.add("machine", number, read=memory["read"][-1], copy=memory["copy"][-1])

        in_turn(children, repeats, work, lambda child, why: failed(child.name, why), probe)
    shape = subjects[0].resolved.model
    return Decodings(
        list(found.values()), baseline_of(subjects), list(positions),
        {name: s for name, values in memory.items() if (s := Spread.of(values))},
        describe_machine(),
        {"layers": shape.layers, "width": shape.width, "vocabulary": shape.vocab_size,
         "tokens": tokens, "repeats": repeats},
    )  # fmt: skip


def _row(writing: Writing, position: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": writing.name, "model": writing.model, "position": position}
    speed, share = writing.speed(position), None
    if speed is None:
        return row | {"status": "failed", "reason": writing.failed or "not run"}
    share = writing.share(position)
    assert share is not None
    read = writing.reading[position]
    return row | {
        "status": "failed" if writing.failed else "measured",
        "tokens_per_second": speed.to_dict(),
        "state_bytes": read["state_bytes"],
        "bytes_per_token": writing.bytes_per_token(position),
        "bandwidth_share": share.to_dict(),
        "prefill_tokens_per_second": read["tokens"] / read["seconds"],
        "peak_bytes": writing.answers[position][-1]["peak_bytes"],
        "dtype": writing.warm["dtype"],
        "parameters": writing.warm["parameters"],
        "active_parameters": writing.warm["active_parameters"],
    }


# -- for a reader ---------------------------------------------------------------------------------


def table(decodings: Decodings) -> tuple[list[str], list[list[str]]]:
    """Tokens a second by position, state at both ends, flatness, share of the memory's rate."""
    columns = [
        "Model", *(f"at {p:,}" for p in decodings.positions), "Last / first", "State",
        "Share of bandwidth",
    ]  # fmt: skip
    rows = []
    for writing in decodings.writings:
        speeds = [writing.speed(p) for p in decodings.positions]
        cells = [f"{s.median:,.0f}" if s else "failed" for s in speeds]
        flat = writing.flatness()
        first, last = decodings.positions[0], decodings.positions[-1]
        states = [writing.reading[p]["state_bytes"] for p in (first, last) if p in writing.reading]
        share = writing.share(last) if writing.reading.get(last) else None
        rows.append(
            [writing.name, *cells, f"{flat:.2f}x" if flat else "–",
             " to ".join(f"{nbytes / 1e3:,.1f} kB" for nbytes in dict.fromkeys(states)) or "–",
             f"{share.median:.0%}" if share else "–"]
        )  # fmt: skip
    return columns, rows


def findings(decodings: Decodings) -> list[str]:
    """Sentences: speed, flatness and state of each."""
    said = []
    first, last = decodings.positions[0], decodings.positions[-1]
    base = next(w for w in decodings.writings if w.name == decodings.base)
    for writing in decodings.writings:
        if writing.failed:
            said.append(f"{writing.name} failed: {writing.failed}.")
        speed, flat, own = writing.speed(last), writing.flatness(), base.speed(last)
        if speed is None or flat is None:
            continue
        grew = writing.reading[last]["state_bytes"] / max(1, writing.reading[first]["state_bytes"])
        held = "its state does not grow" if grew == 1 else f"its state grows {grew:,.1f} times"
        against = (
            f", {speed.median / own.median:.2f} times as fast as {base.name}"
            if own and writing is not base
            else ""
        )
        said.append(
            f"{writing.name} writes {speed.median:,.0f} tokens a second at position {last:,}"
            f"{against}; that is {flat:.0%} of its speed at {first:,}, and {held}."
        )
    return said


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
        "position. A small model lies in the processor's caches, and so did that probe.",
    )  # fmt: skip
    measured = [w for w in decodings.writings if w.answers]
    made.plot("Speed", [_speed_trace(w) for w in measured], _axes("Tokens/s"))
    made.plot("State", [_state_trace(w) for w in measured], _axes("Bytes of state"))
    return made


def _speed_trace(writing: Writing) -> dict[str, Any]:
    spreads = {p: s for p in writing.answers if (s := writing.speed(p))}
    bars = [spread.bars() for spread in spreads.values()]
    return {
        "name": writing.name,
        "x": list(spreads),
        "y": [spread.median for spread in spreads.values()],
        "error_y": {
            "type": "data",
            "array": [up for up, _ in bars],
            "arrayminus": [down for _, down in bars],
        },
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
