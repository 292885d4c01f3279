"""Who is measured, in which common shape: layers, width, context, vocabulary and batch are the same
for all, so that what differs is the mechanism and what belongs to it (heads, say).

Also what all measuring benches share: spreads of repeated figures, and the log of raw rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli import registry
from holo_cli.bench.experiment.plan import Entry, check_model, parse_variant
from holo_cli.bench.experiment.result_log import ResultLog, Row
from holo_cli.config.resolve import Resolved, default_preset, resolve
from holo_cli.config.sources import read_sets
from holo_cli.errors import UsageError

BASELINE = "vanilla"
VOCABULARY = {"tiny": 1024}
ROWS = {"tiny": 8, "25m": 2}  # sequences in a training batch
USUAL_VOCABULARY, USUAL_ROWS = 8192, 4

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ResolvedEntry:
    """A model in the shape in which it is measured; `resolved` holds vocabulary and batch too."""

    name: str
    resolved: Resolved

    @property
    def model(self) -> str:
        return self.resolved.model_name

    def with_settings(self, changes: dict[str, Any]) -> ResolvedEntry:
        """The same with some dotted keys changed. Raises UsageError for values out of range."""
        return ResolvedEntry(self.name, self.resolved.replace(changes, source="bench"))


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
    """The subjects in the order given, models first; every model there is where none is named.

    `variants` are "NAME=MODEL,KEY=VALUE,..."; `sets` are "key=value" for all subjects, over the
    common shape and under a variant's own keys. `reserved` are keys that a bench sets,
    with the
    flags that they have. Raises UsageError for those, for unknown models, presets and keys, for
    values out of range, and for a name that is used twice.
    """
    reserved = {"model.vocab_size": "--vocab-size", **reserved}
    entries = [Entry(name, check_model(name)) for name in models]
    entries += [parse_variant(text) for text in variants]
    entries = entries or [Entry(name, name) for name in registry.model_names()]
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"'{twice}' is named twice.", next_step="Give each another name.")
    base = entries[0].model if all(e.model != BASELINE for e in entries) else BASELINE
    shape = resolve(base, preset).model
    common: dict[str, Any] = {
        "model.layers": shape.layers,
        "model.width": shape.width,
        "model.context": context or shape.context,
        "training.batch_size": batch_size or ROWS.get(preset, USUAL_ROWS),
        "training.device": device,
        "training.dtype": dtype,
    }
    for_all = {given.key: given.value for given in read_sets(sets)}
    for source, settings in (("--set", for_all), *((e.name, e.settings) for e in entries)):
        for key in settings:
            if key in reserved:
                raise UsageError(
                    f"{key} of {source} would be without effect: here it is the same for all.",
                    next_step=f"Use {reserved[key]}.",
                )
    subjects = []
    for entry in entries:
        known = preset in registry.preset_names(entry.model)
        resolved = resolve(entry.model, preset if known else default_preset(entry.model))
        changes = {**common, **for_all, **entry.settings}
        changes["model.vocab_size"] = vocab_size or VOCABULARY.get(preset, USUAL_VOCABULARY)
        subjects.append(ResolvedEntry(entry.name, resolved.replace(changes, source="bench")))
    return subjects


def baseline_of(subjects: Sequence[ResolvedEntry]) -> str:
    """The subject that ratios are taken to: plain vanilla, else the first vanilla, else the
    first."""
    named = [s.name for s in subjects if s.name == BASELINE]
    of_model = [s.name for s in subjects if s.model == BASELINE]
    return (named or of_model or [subjects[0].name])[0]


def with_dtype(subject: ResolvedEntry) -> ResolvedEntry:
    """With the number format that training would choose here, found once for all processes."""
    from holo_cli.training.precision import pick_device, pick_dtype

    training = subject.resolved.training
    dtype = pick_dtype(training.dtype, pick_device(training.device))
    return subject.with_settings({"training.dtype": str(dtype).removeprefix("torch.")})


@dataclass(frozen=True)
class Spread:
    """Median, least and most of repeated figures."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None of no values."""
        found = list(values)
        if not found:
            return None
        return cls(statistics.median(found), min(found), max(found), len(found))

    def bars(self) -> tuple[float, float]:
        """Distances from the median, up and down: Plotly's `array` and `arrayminus`."""
        return self.high - self.median, self.median - self.low

    def to_dict(self) -> dict[str, float | int]:
        return {"median": self.median, "low": self.low, "high": self.high, "count": self.count}


def spread_text(spread: Mapping[str, float] | None, form: str, unit: str = "") -> str:
    """Median, with least and most in brackets."""
    if spread is None:
        return "–"
    median, low, high = (f"{spread[key]:{form}}" for key in ("median", "low", "high"))
    return f"{median}{unit} ({low} to {high})"


def megabytes(nbytes: float | None) -> str:
    """Bytes for a reader: kB under a megabyte, else MB."""
    if nbytes is None:
        return "–"
    return f"{nbytes / 1e3:,.1f} kB" if nbytes < 1e6 else f"{nbytes / 1e6:,.0f} MB"


@dataclass
class Log:
    """Every single measurement, as it comes: in memory, and as a line of JSON where a file is
    given. `run` names this run of the command in the file, which may hold others."""

    run: str
    rows: ResultLog | None = None
    kept: list[Row] = field(default_factory=list)

    @classmethod
    def to(cls, path: Path | None, bench: str, run: str) -> Log:
        """Raises DataError where the file holds rows of another bench or version."""
        return cls(run, None if path is None else ResultLog(path, bench))

    def add(self, *place: object, **figures: Any) -> None:
        """`place` says what was measured: phase, name, round, ..."""
        row = {"key": "/".join(map(str, (self.run, *place))), "run": self.run, **figures}
        self.kept.append(row)
        if self.rows is not None:
            self.rows.add(row)
