"""What `holo bench speed`, `scaling` and `decode` share: the models and their shape, the log of
measurements, and medians and ratios over rounds.

Layers, width, context, vocabulary and batch are the same for all models, so that what differs is
the mechanism and what belongs to it (heads, for example). Models are measured in turn, round after
round: a ratio is taken within a round, and its median is over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli import registry
from holo_cli.config.resolve import Resolved, default_preset, resolve
from holo_cli.config.sources import read_sets
from holo_cli.errors import UsageError
from holo_cli.experiment.plan import Entry, parse_variant, registered_name
from holo_cli.experiment.result_log import ResultLog, Row
from holo_cli.speed.model_process import Reply

BASELINE = "vanilla"
VOCABULARY = {"tiny": 1024}
BATCH_SIZE = {"tiny": 8, "25m": 2}
DEFAULT_VOCABULARY, DEFAULT_BATCH_SIZE = 8192, 4

Notify = Callable[[str], None]  # called with a line about what has happened


@dataclass(frozen=True)
class ResolvedEntry:
    """A model in the shape in which it is measured; `resolved` includes vocabulary and batch."""

    name: str
    resolved: Resolved

    @property
    def model(self) -> str:
        return self.resolved.model_name

    def with_settings(self, changes: dict[str, Any]) -> ResolvedEntry:
        """With some dotted keys changed. Raises UsageError for values out of range."""
        return ResolvedEntry(self.name, self.resolved.replace(changes, source="bench"))

    def with_dtype(self) -> ResolvedEntry:
        """With the number format that training would choose here, chosen once for all processes."""
        from holo_cli.training.precision import pick_device, pick_dtype

        training = self.resolved.training
        dtype = pick_dtype(training.dtype, pick_device(training.device))
        return self.with_settings({"training.dtype": str(dtype).removeprefix("torch.")})


def resolve_entries(
    models: Sequence[str],
    variants: Sequence[str] = (),
    *,
    preset: str = "tiny",
    sets: Sequence[str] = (),
    context: int | None = None,
    batch_size: int | None = None,
    vocab_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    reserved: Mapping[str, str] = {},
) -> list[ResolvedEntry]:
    """The entries in the order given, models first; every registered model where none is named.

    `variants` are "NAME=MODEL,KEY=VALUE,..."; `sets` are "key=value" for all entries, over the
    common shape and under a variant's own keys. `reserved` are keys that the bench sets itself,
    with their flags. Raises UsageError for those, for unknown models, presets and keys, for values
    out of range, and for a name that is used twice.
    """
    reserved = {"model.vocab_size": "--vocab-size", **reserved}
    entries = [Entry(name, registered_name(name)) for name in models]
    entries += [parse_variant(text) for text in variants]
    entries = entries or [Entry(name, name) for name in registry.model_names()]
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"'{twice}' is named twice.", next_step="Give each entry a different name."
        )
    base = entries[0].model if all(e.model != BASELINE for e in entries) else BASELINE
    if not registry.preset_names(base):
        base = BASELINE
    shape = resolve(base, preset).model
    common: dict[str, Any] = {
        "model.layers": shape.layers,
        "model.width": shape.width,
        "model.context": context or shape.context,
        "training.batch_size": batch_size or BATCH_SIZE.get(preset, DEFAULT_BATCH_SIZE),
        "training.device": device,
        "training.dtype": dtype,
    }
    for_all = {given.key: given.value for given in read_sets(sets)}
    for source, settings in (("--set", for_all), *((e.name, e.settings) for e in entries)):
        for key in settings:
            if key in reserved:
                raise UsageError(
                    f"{key} of {source} would have no effect: it is the same for all entries.",
                    next_step=f"Use {reserved[key]}.",
                )
    found = []
    for entry in entries:
        presets = registry.preset_names(entry.model)
        resolved = resolve(
            entry.model, preset if preset in presets else default_preset(entry.model)
        )
        # a model without presets has no heads of its own that fit the common width
        heads = {} if presets else {"model.heads": shape.heads}
        changes = {**common, **heads, **for_all, **entry.settings}
        changes["model.vocab_size"] = vocab_size or VOCABULARY.get(preset, DEFAULT_VOCABULARY)
        found.append(ResolvedEntry(entry.name, resolved.replace(changes, source="bench")))
    return found


def baseline_of(entries: Sequence[ResolvedEntry]) -> str:
    """The entry that ratios are relative to: the one named vanilla, else the first vanilla model,
    else the first entry."""
    named = [e.name for e in entries if e.name == BASELINE]
    of_model = [e.name for e in entries if e.model == BASELINE]
    return (named or of_model or [entries[0].name])[0]


# -- over rounds ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of a repeated figure."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None without values."""
        found = list(values)
        if not found:
            return None
        return cls(statistics.median(found), min(found), max(found), len(found))

    def to_dict(self) -> dict[str, float | int]:
        return {"median": self.median, "low": self.low, "high": self.high, "count": self.count}


def as_dict(spread: Spread | None) -> dict[str, float | int] | None:
    return None if spread is None else spread.to_dict()


def rates(answers: Mapping[int, Reply], clock: str = "seconds") -> Spread | None:
    """Tokens per second by round; per processor second with "cpu_seconds"."""
    return Spread.of(a["tokens"] / max(a[clock], 1e-9) for a in answers.values())


def speed_ratio(
    answers: Mapping[int, Reply], other: Mapping[int, Reply], clock: str = "seconds"
) -> Spread | None:
    """How many times as fast as the other, in the rounds that both have."""
    return Spread.of(
        (answers[r]["tokens"] / answers[r][clock]) / (other[r]["tokens"] / other[r][clock])
        for r in sorted(answers.keys() & other.keys())
        if answers[r][clock] > 0 and other[r][clock] > 0
    )


def error_bars(spreads: Iterable[Spread], scale: float = 1.0) -> dict[str, Any]:
    """Plotly's `error_y` of a trace, from minimum to maximum; for medians times `scale`."""
    found = list(spreads)
    return {
        "type": "data",
        "array": [scale * (s.high - s.median) for s in found],
        "arrayminus": [scale * (s.median - s.low) for s in found],
    }


def spread_text(spread: Spread | Mapping[str, float] | None, form: str, unit: str = "") -> str:
    """Median, with minimum and maximum in brackets."""
    if spread is None:
        return "–"
    values = spread.to_dict() if isinstance(spread, Spread) else spread
    median, low, high = (f"{values[key]:{form}}" for key in ("median", "low", "high"))
    return f"{median}{unit} ({low} to {high})"


def megabytes(nbytes: float | None) -> str:
    """Bytes in kB below a megabyte, else in MB."""
    if nbytes is None:
        return "–"
    return f"{nbytes / 1e3:,.1f} kB" if nbytes < 1e6 else f"{nbytes / 1e6:,.0f} MB"


@dataclass
class MeasurementLog:
    """Every single measurement as it comes: in memory, and as a JSON line where there is a file.

    `run` names this run of the command in the file, which may hold others.
    """

    run: str
    file: ResultLog | None = None
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path | None, bench: str, run: str) -> MeasurementLog:
        """Raises DataError where the file holds rows of another bench or version."""
        return cls(run, None if path is None else ResultLog(path, bench))

    def add(self, *place: object, **figures: Any) -> None:
        """`place` names what was measured: phase, name, round, ..."""
        row = {"key": "/".join(map(str, (self.run, *place))), "run": self.run, **figures}
        self.rows.append(row)
        if self.file is not None:
            self.file.add(row)
