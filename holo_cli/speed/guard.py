"""`holo bench guard`: has anything become slower? The main ratios against a stored baseline.

Absolute times depend on the machine and on what else it does; ratios of two things that are
measured in turn depend on them little. A side of a ratio is a case: training or decoding of a
model, or its slow reference. All cases are measured in every round, in an order that rotates. A
ratio is taken within a round, and counts as slower where its median is below the baseline's by more
than the tolerance and three quarters of its rounds are below the baseline as well.

All cases share one process: they are small, and a process each would take longer to start than to
measure. Number format is float32, in which every machine computes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from holo_cli import registry
from holo_cli.config.resolve import resolve
from holo_cli.errors import DataError, HoloError, TrainingError
from holo_cli.experiment.machine import describe_machine
from holo_cli.files import atomic_write_text
from holo_cli.models import oracle
from holo_cli.parsing import ParseError, read_json
from holo_cli.speed.measurements import BATCH_SIZE, VOCABULARY, ResolvedEntry, Spread
from holo_cli.speed.model_process import rotated
from holo_cli.speed.step_benchmark import (
    DecodingBenchmark,
    Stopwatch,
    TrainingBenchmark,
)

BASELINE = Path(__file__).with_name("guard_baseline.json")
TOLERANCE = 0.25  # of a ratio, where the baseline states no other
MODELS = ("vanilla", "ngt", "holographic", "brain-v1", "brain-v2")
POSITION, TOKENS = 32, 12  # of decoding: from where, and how many
REFERENCE_TOKENS = 16
SLICE = 0.2  # seconds of training steps of a case in a round
LEAST_ROUNDS, MOST_ROUNDS = 3, 15

RatioSide = tuple[str, str]  # kind of measurement, entry
VANILLA: RatioSide = ("train", "vanilla")
DECODE: RatioSide = ("decode", "vanilla")
RATIOS: Mapping[str, tuple[RatioSide, RatioSide]] = {
    **{f"train: {m} / vanilla": (("train", m), VANILLA) for m in MODELS[1:]},
    **{f"decode: {m} / vanilla": (("decode", m), DECODE) for m in MODELS[1:]},
    "train: modern / classic": (VANILLA, ("train", "classic")),
    "train: compiled / eager": (("train", "compiled"), VANILLA),
    "decode / train: vanilla": (DECODE, VANILLA),
    **{f"fast / reference: {m}": (("forward", m), ("reference", m)) for m in MODELS},
}
SLOWER, FASTER, SAME = "slower", "faster", "as before"
UNKNOWN, MISSING = "no baseline", "not measured"


class Measured(Protocol):
    """One side of a ratio."""

    def rate(self) -> float:
        """Tokens per second, of one measurement."""
        ...


class _Train:
    def __init__(self, entry: ResolvedEntry) -> None:
        self.bench = TrainingBenchmark(entry.resolved)
        self.bench.warm()

    def rate(self) -> float:
        found = self.bench.measure(SLICE)
        return float(found["tokens"] / found["seconds"])


class _Decode:
    def __init__(self, entry: ResolvedEntry) -> None:
        self.bench = DecodingBenchmark(entry.resolved)
        self.bench.warm()
        self.bench.read(POSITION)

    def rate(self) -> float:
        found = self.bench.measure(POSITION, TOKENS)
        return float(found["tokens"] / found["seconds"])


class _Forward:
    """The forward pass of one short row, or the same by the model's slow reference."""

    def __init__(self, entry: ResolvedEntry, *, slow: bool) -> None:
        torch.manual_seed(0)
        self.model = registry.build_model(entry.model, entry.resolved.model).eval()
        self.tokens = torch.arange(REFERENCE_TOKENS)[None] % self.model.config.vocab_size
        self.reference = registry.part(entry.model, "reference") if slow else None

    def rate(self) -> float:
        runs, watch = 0, Stopwatch(self.model.device)
        end = time.perf_counter() + SLICE / 4
        with torch.inference_mode():
            while not runs or time.perf_counter() < end:
                if self.reference is None:
                    self.model(self.tokens)
                else:
                    oracle.logits(self.reference, self.model, self.tokens)
                runs += 1
        return runs * REFERENCE_TOKENS / watch.read()["seconds"]


def case(side: RatioSide, configs: Mapping[str, ResolvedEntry]) -> Measured:
    """Builds and warms up one side of a ratio."""
    kind, entry = side[0], configs[side[1]]
    if kind == "train":
        return _Train(entry)
    if kind == "decode":
        return _Decode(entry)
    found = _Forward(entry, slow=kind == "reference")
    found.rate()
    return found


def entries(preset: str = "tiny") -> dict[str, ResolvedEntry]:
    """The measured configs by name, all of one shape and in float32 on the CPU. HOLO_ variables
    do not count: the baseline was measured without."""
    shape = resolve("vanilla", preset, env={}).model
    same = {
        "model.layers": shape.layers, "model.width": shape.width, "model.context": shape.context,
        "model.vocab_size": VOCABULARY["tiny"], "training.batch_size": BATCH_SIZE["tiny"],
        "training.device": "cpu", "training.dtype": "float32",
    }  # fmt: skip

    def entry(name: str, model: str, recipe: str | None = None, **more: Any) -> ResolvedEntry:
        flags = {**same, **{f"training.{key}": value for key, value in more.items()}}
        return ResolvedEntry(name, resolve(model, preset, recipe, flags=flags, env={}))

    found = {name: entry(name, name) for name in MODELS}
    found["compiled"] = entry("compiled", "vanilla", compile=True)
    found["classic"] = entry("classic", "vanilla", "classic")
    return found


# -- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GuardedRatio:
    """One ratio: as measured, as stored, and what is said of it."""

    name: str
    verdict: str
    ratio: Spread | None
    before: float | None
    tolerance: float
    reason: str = ""  # why it was not measured

    def to_dict(self) -> dict[str, Any]:
        return {
            "ratio": self.name, "verdict": self.verdict, "before": self.before,
            "tolerance": self.tolerance, "reason": self.reason,
            "now": None if self.ratio is None else self.ratio.to_dict(),
        }  # fmt: skip


def measure(
    *,
    seconds: float = 240.0,
    ratios: Mapping[str, tuple[RatioSide, RatioSide]] = RATIOS,
    configs: Mapping[str, ResolvedEntry] | None = None,
    compile_too: bool = True,
    notify: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Ratios by name, one for each round, and why others could not be measured.

    Rounds end when `seconds` have passed since the start, after at least LEAST_ROUNDS.
    """
    started = time.perf_counter()
    configs = entries() if configs is None else configs
    wanted = {name: pair for name, pair in ratios.items() if compile_too or "compiled" not in name}
    failed = {name: "left out" for name in ratios if name not in wanted}
    cases: dict[RatioSide, Measured] = {}
    broken: dict[RatioSide, str] = {}
    for side in dict.fromkeys(side for pair in wanted.values() for side in pair):
        try:
            cases[side] = case(side, configs)
        except (TrainingError, RuntimeError) as error:  # no compiler, say
            broken[side] = str(error).partition("\n")[0]
            notify(f"{side[1]} failed: {broken[side]}")
    rounds: list[dict[RatioSide, float]] = []
    while len(rounds) < LEAST_ROUNDS or (
        len(rounds) < MOST_ROUNDS and time.perf_counter() - started < seconds
    ):
        order = rotated(list(cases), len(rounds))
        rounds.append({side: cases[side].rate() for side in order})
    found = {}
    for name, (fast, base) in wanted.items():
        if lost := broken.get(fast) or broken.get(base):
            failed[name] = lost
        else:
            found[name] = [row[fast] / row[base] for row in rounds]
    return found, failed


# -- judging --------------------------------------------------------------------------------------


def judge(
    found: Mapping[str, list[float]], failed: Mapping[str, str], baseline: Mapping[str, Any]
) -> list[GuardedRatio]:
    """A line for each ratio that was measured, failed, or is in the baseline."""
    stored: Mapping[str, Mapping[str, float]] = baseline.get("ratios", {})
    lines = []
    for name in dict.fromkeys((*found, *failed, *stored)):
        values = found.get(name)
        before = stored[name]["ratio"] if name in stored else None
        tolerance = stored.get(name, {}).get("tolerance", TOLERANCE)
        verdict = MISSING if values is None else _verdict(values, before, tolerance)
        ratio = None if values is None else Spread.of(values)
        lines.append(GuardedRatio(name, verdict, ratio, before, tolerance, failed.get(name, "")))
    return lines


def _verdict(values: list[float], before: float | None, tolerance: float) -> str:
    if before is None:
        return UNKNOWN
    median = statistics.median(values)
    below = sum(value < before for value in values) / len(values)
    if median < before * (1 - tolerance) and below >= 0.75:
        return SLOWER
    if median > before / (1 - tolerance) and below <= 0.25:
        return FASTER
    return SAME


# -- the baseline ---------------------------------------------------------------------------------


def read_baseline(path: Path | None = None) -> dict[str, Any]:
    """The stored ratios. Raises DataError for a file that is missing or something else."""
    path = path or BASELINE
    try:
        found = read_json(path)
    except OSError as error:
        raise DataError(
            f"Cannot read the baseline {path}: {error.strerror}.",
            next_step="Write one with: holo bench guard --update --baseline FILE",
        ) from error
    except ParseError as error:
        raise DataError(f"The baseline {path} is {error}.") from error
    ratios = found.get("ratios") if isinstance(found, dict) else None
    if not isinstance(ratios, dict) or not all(
        isinstance(row, dict) and isinstance(row.get("ratio"), int | float)
        for row in ratios.values()
    ):
        raise DataError(
            f"The file {path} is no baseline of `holo bench guard`.",
            next_step="Write one with: holo bench guard --update --baseline FILE",
        )
    return dict(found)


def write_baseline(path: Path, found: Mapping[str, list[float]]) -> None:
    """Stores medians. The tolerance of each is TOLERANCE, or twice the half range of its middle
    rounds where they differ by more."""
    ratios = {}
    for name, values in found.items():
        median = statistics.median(values)
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (median,) * 3
        tolerance = min(0.6, max(TOLERANCE, (high - low) / median))
        ratios[name] = {"ratio": round(median, 4), "tolerance": round(tolerance, 3)}
    content = {"ratios": ratios, "machine": describe_machine()}
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def slower_error(lines: list[GuardedRatio]) -> HoloError | None:
    """The error that ends the command where something became slower."""
    names = [line.name for line in lines if line.verdict == SLOWER]
    if not names:
        return None
    return HoloError(
        f"{len(names)} of {len(lines)} ratios became slower: {', '.join(names)}.",
        next_step="Run it again on an idle machine, or accept these ratios with --update.",
    )
