"""What brain-v2 was meant to gain over brain-v1, beside what was measured, with a verdict.

The aims are those that the older project stated for its second system over its first: training 3 to
5 times as fast, half the memory, inference 4 to 5 times as fast, and few-shot learning. The lower
end of a range is the aim.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holo_cli.bench.brain.run import V1, V2, BrainBench
from holo_cli.bench.compare.summary import UNIT
from holo_cli.bench.recall.run import RecallScore, percent
from holo_cli.experiment.result_log import Row
from holo_cli.speed.measurements import megabytes, spread_text

TRAINING_AIM, DECODING_AIM = 3.0, 4.0  # times as fast as brain-v1
MEMORY_AIM = 0.5  # of brain-v1's

AimVerdict = Literal["met", "not met", "undecided", "not measured"]


@dataclass(frozen=True)
class AimLine:
    """One line of the table. `aim` is empty where none was stated; `verdict` is then of the
    comparison. `figures` are the numbers behind `measured`."""

    what: str
    aim: str
    measured: str
    verdict: str
    figures: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "what": self.what, "aim": self.aim or None, "measured": self.measured,
            "verdict": self.verdict, **self.figures,
        }  # fmt: skip


def aim_lines(bench: BrainBench) -> list[AimLine]:
    """The table, in the order of the aims; then what no aim was stated for."""
    row = bench.reported_speed()
    return [
        _speed("training speed", "3 to 5 times as fast", "training", TRAINING_AIM, row),
        _memory(row),
        _speed("decoding speed", "4 to 5 times as fast", "decoding", DECODING_AIM, row),
        _recall([s for s in bench.scores() if s.trained]),
        _loss(bench),
        _parameters(bench),
        _state(row),
    ]


def at_least(aim: float, low: float, high: float, count: int) -> AimVerdict:
    """Whether a ratio measured in `count` rounds reaches the aim: all of its range, or none of
    it."""
    if count < 2:
        return "undecided"
    if low >= aim:
        return "met"
    return "not met" if high < aim else "undecided"


def recalls_better(v1: Sequence[float], v2: Sequence[float], chance: float) -> AimVerdict:
    """Whether every seed of brain-v2 recalls more than every seed of brain-v1, and more than twice
    what guessing gets. One seed decides nothing."""
    if not v1 or not v2:
        return "not measured"
    if min(len(v1), len(v2)) < 2:
        return "undecided"
    if min(v2) > max(*v1, 2 * chance):
        return "met"
    return "not met" if statistics.mean(v2) <= statistics.mean(v1) else "undecided"


def _of(row: Row | None, name: str, phase: str) -> Mapping[str, Any] | None:
    found = next((r for r in row["rows"] if r["name"] == name), None) if row else None
    return found[phase] if found else None


def _speed(what: str, aim: str, phase: str, least: float, row: Row | None) -> AimLine:
    figures = _of(row, V2, phase)
    ratio = figures["ratio"] if figures else None
    if figures is None or ratio is None:
        return AimLine(what, aim, "–", "not measured", {"ratio": None})
    verdict = at_least(least, ratio["low"], ratio["high"], ratio["count"])
    measured = spread_text(ratio, ".2f", "x")
    if (cpu := figures["cpu_ratio"]) is not None:
        measured += f"; by processor time {cpu['median']:.2f}x"
    rates = {n: f["tokens_per_second"] for n in (V1, V2) if (f := _of(row, n, phase))}
    return AimLine(what, aim, measured, verdict,
                {"ratio": ratio, "cpu_ratio": cpu, "tokens_per_second": rates})  # fmt: skip


def _memory(row: Row | None) -> AimLine:
    """Peak of training beyond what the process has before the model, or of the GPU's memory."""
    what, aim = "memory in training", "50 % less"
    used: dict[str, int] = {}
    for name in (V1, V2):
        figures = _of(row, name, "training")
        if figures is not None and figures["peak_bytes"] is not None:
            before = figures["before_bytes"] if figures["device"] == "cpu" else 0
            used[name] = figures["peak_bytes"] - before
    if len(used) < 2 or min(used.values()) <= 0:
        return AimLine(what, aim, "–", "not measured", {"bytes": used})
    share = used[V2] / used[V1]
    side = "less" if share <= 1 else "more"
    sizes = f"{megabytes(used[V2])}, brain-v1 {megabytes(used[V1])}"
    measured = f"{100 * abs(1 - share):.0f} % {side}: {sizes}"
    return AimLine(what, aim, measured, "met" if share <= MEMORY_AIM else "not met",
                {"share": share, "bytes": used})  # fmt: skip


def _recall(scores: Sequence[RecallScore]) -> AimLine:
    """Names told once, at the longest trained case; chance beside it."""
    what, aim = "few-shot recall", "few-shot learning"
    longest = max((s.case for s in scores), default=None)
    found = {s.entry: s for s in scores if s.case == longest}
    accuracies = {n: found[n].accuracies if n in found else [] for n in (V1, V2)}
    figures = {"case": None if longest is None else list(longest), "accuracies": accuracies}
    if not all(accuracies.values()):
        return AimLine(what, aim, "–", "not measured", figures)
    chance = found[V2].spec.task.chance
    verdict = recalls_better(accuracies[V1], accuracies[V2], chance)
    measured = (
        f"{percent(found[V2].accuracy)} of names told once, brain-v1 "
        f"{percent(found[V1].accuracy)}, chance {percent(chance)}"
    )
    return AimLine(what, aim, measured, verdict, figures | {"chance": chance})


def _loss(bench: BrainBench) -> AimLine:
    what = "loss after equal training"
    summary = bench.summary()
    losses = {line.entry: line.loss for line in summary.lines}
    difference = summary.difference(V2)
    if difference is None:
        return AimLine(what, "", "–", "not measured", {"loss": losses})
    verdict: str = difference.verdict
    side = "lower" if difference.value < 0 else "higher"
    half = "" if difference.half is None else f" ± {difference.half:.4f}"
    measured = (
        f"{losses[V2]:.4f}, brain-v1 {losses[V1]:.4f}: {abs(difference.value):.4f}{half} {UNIT} "
        f"{side}"
    )
    figures = {"loss": losses, "difference": difference.to_dict()}
    return AimLine(what, "", measured, verdict, figures)


def _parameters(bench: BrainBench) -> AimLine:
    described = bench.experiment.described
    sizes = {n: described[n].parameters for n in (V1, V2)}
    active = {n: described[n].active_parameters for n in (V1, V2)}
    measured = (
        f"{sizes[V2]:,}, brain-v1 {sizes[V1]:,}; for one token {active[V2]:,}, brain-v1 "
        f"{active[V1]:,}"
    )
    verdict = "matched" if bench.experiment.is_matched(V2) else "not matched"
    figures = {"parameters": sizes, "active_parameters": active}
    return AimLine("parameters", "", measured, verdict, figures)


def _state(row: Row | None) -> AimLine:
    found = {n: f["state_bytes"] for n in (V1, V2) if (f := _of(row, n, "decoding"))}
    what = "state of decoding"
    if len(found) < 2:
        return AimLine(what, "", "–", "not measured", {"state_bytes": found})
    measured = f"{megabytes(found[V2])}, brain-v1 {megabytes(found[V1])}"
    verdict = "smaller" if found[V2] < found[V1] else "larger"
    return AimLine(what, "", measured, verdict, {"state_bytes": found})
