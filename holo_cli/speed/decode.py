"""`holo bench decode`: tokens per second and bytes of state by position in the text.

A model with a state of fixed size should be flat in both; one that keeps keys and values grows. The
speed is also compared with the memory: each token of one row reads every active weight and the
whole state, so decoding cannot be faster than reading these bytes. That rate is measured in the
same rounds, by matrix-vector products over as many bytes. Ratios of positions and of models are
taken within a round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from holo_cli.errors import UsageError
from holo_cli.experiment.machine import describe_machine
from holo_cli.speed.measurements import (
    MeasurementLog,
    Notify,
    ResolvedEntry,
    Spread,
    baseline_of,
    error_bars,
    rates,
    speed_ratio,
    spread_text,
)
from holo_cli.speed.model_process import ModelProcess, ModelProcessError, Reply, run_rounds
from holo_cli.speed.step_benchmark import copy_rate, read_rate
from holo_cli.visualize.report import Report
from holo_cli.wording import counted

ROOM = 4  # tokens of a measurement besides the timed ones


@dataclass
class DecodingFigures:
    """The measurements of one entry, by position and round."""

    name: str
    model: str
    warm: Reply = field(default_factory=dict)
    answers: dict[int, dict[int, Reply]] = field(default_factory=lambda: defaultdict(dict))
    prefill: dict[int, Reply] = field(default_factory=dict)  # of the prompt up to a position
    # memory bandwidth, bytes/s, in the same rounds
    bandwidth: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    failed: str = ""

    def speed(self, position: int) -> Spread | None:
        """Tokens per second from a position on."""
        return rates(self.answers[position])

    def share(self, position: int) -> Spread | None:
        """Share of the memory bandwidth that is used, by round."""
        nbytes = self.bytes_per_token(position)
        return Spread.of(
            a["tokens"] / a["seconds"] * nbytes / self.bandwidth[position][number]
            for number, a in self.answers[position].items()
        )

    def bytes_per_token(self, position: int) -> int:
        """Bytes that one token reads: the active weights and the state."""
        return int(self.warm["weight_bytes"] + self.prefill[position]["state_bytes"])

    def flatness(self, clock: str = "seconds") -> Spread | None:
        """Speed at the last position relative to the first, by round; with "cpu_seconds" in tokens
        per processor second. None with fewer than two positions."""
        known = [p for p in sorted(self.answers) if self.answers[p]]
        if len(known) < 2:
            return None
        return speed_ratio(self.answers[known[-1]], self.answers[known[0]], clock)

    def ratio(self, base: DecodingFigures, position: int, clock: str = "seconds") -> Spread | None:
        """How many times as fast as `base` at a position, in rounds that both have."""
        return speed_ratio(self.answers[position], base.answers[position], clock)


@dataclass(frozen=True)
class DecodingResults:
    """All results of a run. `memory` are bytes per second of the machine: "read" and "copy"."""

    figures: list[DecodingFigures]
    base: str
    positions: list[int]
    memory: Mapping[str, Spread]
    machine: Mapping[str, Any]
    shape: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each entry and position."""
        return [_row(w, p, self.baseline) for w in self.figures for p in self.positions]

    @property
    def baseline(self) -> DecodingFigures:
        return next(w for w in self.figures if w.name == self.base)


def measure(
    entries: Sequence[ResolvedEntry],
    log: MeasurementLog,
    *,
    positions: Sequence[int],
    tokens: int = 16,
    repeats: int = 3,
    bandwidth_bytes: int = 1 << 28,
    notify: Notify = lambda line: None,
) -> DecodingResults:
    """Measure all entries at all positions, in turn, with a context that holds the last one.

    `bandwidth_bytes` is the size of the machine's own measurement, well beyond its caches.
    """
    positions = sorted(set(positions))
    if not positions or positions[0] < 1 or tokens < 1:
        raise UsageError(
            "Positions start at 1, and at least one token is decoded from each.",
            next_step="For example: --positions 16,256,1024",
        )
    context = positions[-1] + tokens + ROOM
    entries = [s.with_settings({"model.context": context}) for s in entries]
    found = {s.name: DecodingFigures(s.name, s.model) for s in entries}
    memory: dict[str, list[float]] = {"read": [], "copy": []}

    def on_failure(name: str, reason: str) -> None:
        found[name].failed = reason
        log.add(name, "failed", name=name, failed=reason)
        notify(f"{name} failed: {reason}")

    with ExitStack() as stack:
        processes = []
        for entry in entries:
            process = stack.enter_context(ModelProcess(entry.name, "decoding", entry.resolved))
            try:
                found[entry.name].warm = process.ask("warm")
            except ModelProcessError as error:
                on_failure(entry.name, str(error))
                continue
            log.add(entry.name, "warm", name=entry.name, **found[entry.name].warm)
            processes.append(process)

        def measure_round(process: ModelProcess, number: int) -> None:
            figures = found[process.name]
            for position in positions:
                if position not in figures.prefill:
                    figures.prefill[position] = process.ask("read", position=position)
                answer = process.ask("measure", position=position, tokens=tokens)
                rate = read_rate(figures.bytes_per_token(position), seconds=0.05)
                figures.answers[position][number] = answer
                figures.bandwidth[position][number] = rate
                state = figures.prefill[position]["state_bytes"]
                log.add(
                    process.name, position, number, name=process.name, position=position,
                    state_bytes=state, read_rate=rate, **answer,
                )  # fmt: skip
            speed = figures.speed(positions[-1])
            assert speed is not None
            notify(
                f"{number + 1}/{repeats}: {process.name} {speed.median:,.0f} tokens/s at the end"
            )

        def measure_memory(number: int) -> None:
            memory["read"].append(read_rate(bandwidth_bytes))
            memory["copy"].append(copy_rate(bandwidth_bytes))
            log.add("machine", number, read=memory["read"][-1], copy=memory["copy"][-1])

        run_rounds(processes, repeats, measure_round, on_failure, measure_memory)
    shape = entries[0].resolved.model
    return DecodingResults(
        list(found.values()), baseline_of(entries), list(positions),
        {name: s for name, values in memory.items() if (s := Spread.of(values))},
        describe_machine(),
        {"layers": shape.layers, "width": shape.width, "vocabulary": shape.vocab_size,
         "tokens": tokens, "repeats": repeats},
    )  # fmt: skip


def _row(figures: DecodingFigures, position: int, base: DecodingFigures) -> dict[str, Any]:
    row: dict[str, Any] = {"name": figures.name, "model": figures.model, "position": position}
    speed, share = figures.speed(position), None
    if speed is None:
        return row | {"status": "failed", "reason": figures.failed or "not run"}
    share = figures.share(position)
    assert share is not None
    read = figures.prefill[position]
    ratios = {
        "ratio": figures.ratio(base, position),
        "cpu_ratio": figures.ratio(base, position, "cpu_seconds"),
        "flatness": figures.flatness(),
        "cpu_flatness": figures.flatness("cpu_seconds"),
    }
    return row | {
        "status": "failed" if figures.failed else "measured",
        "tokens_per_second": speed.to_dict(),
        **{name: ratio and ratio.to_dict() for name, ratio in ratios.items()},
        "state_bytes": read["state_bytes"],
        "bytes_per_token": figures.bytes_per_token(position),
        "bandwidth_share": share.to_dict(),
        "prefill_tokens_per_second": read["tokens"] / read["seconds"],
        "peak_bytes": list(figures.answers[position].values())[-1]["peak_bytes"],
        "dtype": figures.warm["dtype"],
        "parameters": figures.warm["parameters"],
        "active_parameters": figures.warm["active_parameters"],
    }


# -- for a reader ---------------------------------------------------------------------------------


def table(results: DecodingResults) -> tuple[list[str], list[list[str]]]:
    """Tokens per second by position, state at the first and last position, flatness, share of the
    memory bandwidth, and speed at the last position relative to the baseline."""
    columns = [
        "Model", *(f"at {p:,}" for p in results.positions), "Last / first", "State",
        "Share of bandwidth", f"against {results.base}",
    ]  # fmt: skip
    rows = []
    for figures in results.figures:
        speeds = [figures.speed(p) for p in results.positions]
        cells = [f"{s.median:,.0f}" if s else "failed" for s in speeds]
        first, last = results.positions[0], results.positions[-1]
        states = [figures.prefill[p]["state_bytes"] for p in (first, last) if p in figures.prefill]
        share = figures.share(last) if figures.prefill.get(last) else None
        rows.append(
            [figures.name, *cells, _ratio(figures.flatness()),
             " to ".join(f"{nbytes / 1e3:,.1f} kB" for nbytes in dict.fromkeys(states)) or "–",
             f"{share.median:.0%}" if share else "–",
             _ratio(figures.ratio(results.baseline, last))]
        )  # fmt: skip
    return columns, rows


def _ratio(ratio: Spread | None) -> str:
    return spread_text(None if ratio is None else ratio.to_dict(), ".2f", "x")


def by_processor(results: DecodingResults) -> tuple[list[str], list[list[str]]]:
    """The same ratios by processor time."""
    columns, last = ["Model", "Last / first", f"against {results.base}"], results.positions[-1]
    clock = "cpu_seconds"
    return columns, [
        [w.name, _ratio(w.flatness(clock)), _ratio(w.ratio(results.baseline, last, clock))]
        for w in results.figures
    ]


def busy_note(results: DecodingResults) -> str:
    """A warning where a decoding model did not have a processor to itself."""
    share = Spread.of(
        answer["cpu_seconds"] / answer["seconds"]
        for w in results.figures
        if w.answers and w.warm["device"] == "cpu"
        for answers in w.answers.values()
        for answer in answers.values()
    )
    if share is None or share.median > 0.85:
        return ""
    return (
        f"While a model was decoding it had a processor {share.median:.0%} of the time: the "
        "machine was busy. Ratios by processor time, in the page's second table, are more reliable."
    )


def findings(results: DecodingResults) -> list[str]:
    """Sentences: speed, flatness and state of each entry."""
    sentences = []
    first, last = results.positions[0], results.positions[-1]
    for figures in results.figures:
        if figures.failed:
            sentences.append(f"{figures.name} failed: {figures.failed}.")
        speed, flat = figures.speed(last), figures.flatness()
        if speed is None or flat is None:
            continue
        grew = figures.prefill[last]["state_bytes"] / max(1, figures.prefill[first]["state_bytes"])
        held = "its state does not grow" if grew == 1 else f"its state grows {grew:,.1f}-fold"
        ratio = figures.ratio(results.baseline, last)
        sentence = (
            f"{figures.name} decodes {speed.median:,.0f} tokens per second at position {last:,}; "
            f"that is {_by_round(flat, '.0%')} of its speed at {first:,}, and {held}."
        )
        if ratio is not None and figures.name != results.base:
            times = _by_round(ratio, ".2f")
            sentence += f" It is {times} times as fast as {results.base} there."
        sentences.append(sentence)
    return sentences


def _by_round(ratio: Spread, form: str) -> str:
    """The median, with the range over several rounds."""
    around = f" ({ratio.low:{form}} to {ratio.high:{form}} by round)" if ratio.count > 1 else ""
    return f"{ratio.median:{form}}{around}"


def report(results: DecodingResults, title: str = "Decoding") -> Report:
    """The page."""
    shape = results.shape
    made = Report(
        title,
        f"Decoding speed of one row and size of the state at different positions of a "
        f"text: {counted(shape['layers'], 'layer')}, {shape['width']} wide, a vocabulary of "
        f"{shape['vocabulary']:,}. Medians of {counted(shape['repeats'], 'round')} of "
        f"{shape['tokens']} "
        "tokens; in each round all models were measured in turn, each in a process of its own.",
        {
            **results.machine,
            **{
                f"memory_{name}": f"{s.median / 1e9:.1f} GB/s ({s.low / 1e9:.1f} to "
                f"{s.high / 1e9:.1f})"
                for name, s in results.memory.items()
            },
        },
    )
    made.prose("\n".join(f"- {sentence}" for sentence in findings(results)), "Findings")
    columns, rows = table(results)
    made.table(
        "Tokens per second", columns, rows,
        "Share of bandwidth: the bytes of active weights and state that are read per second, as a "
        "share of what matrix-vector products over as many bytes reached in the same rounds, at "
        "the last position. A small model is in the processor's caches, and so was that product. "
        f"Last / first, and against {results.base} at the last position: medians of the ratios "
        "within rounds, with minimum and maximum in brackets.",
    )  # fmt: skip
    if note := busy_note(results):
        made.prose(note)
    made.table("By processor time", *by_processor(results))
    measured = [w for w in results.figures if w.answers]
    made.plot("Speed", [_speed_trace(w) for w in measured], _axes("Tokens/s"))
    made.plot("State", [_state_trace(w) for w in measured], _axes("Bytes of state"))
    return made


def _speed_trace(figures: DecodingFigures) -> dict[str, Any]:
    spreads = {p: s for p in figures.answers if (s := figures.speed(p))}
    return {
        "name": figures.name,
        "x": list(spreads),
        "y": [spread.median for spread in spreads.values()],
        "error_y": error_bars(spreads.values()),
    }


def _state_trace(figures: DecodingFigures) -> dict[str, Any]:
    return {
        "name": figures.name,
        "x": list(figures.prefill),
        "y": [read["state_bytes"] for read in figures.prefill.values()],
    }


def _axes(title: str) -> dict[str, Any]:
    return {
        "xaxis": {"type": "log", "title": {"text": "Position, tokens"}},
        "yaxis": {"type": "log", "title": {"text": title}},
    }
