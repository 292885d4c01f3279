"""What a comparison does, one run at a time, and what a sweep of learning rates has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holo_cli.bench.experiment.result_log import Row
from holo_cli.bench.experiment.search_space import written
from holo_cli.config.resolve import Resolved

if TYPE_CHECKING:
    from holo_cli.bench.experiment.tuning import Trial

SWEEP_SEED = 0


@dataclass(frozen=True)
class Run:
    """One thing to do: a run of the sweep, a trial, a reported run, or a measurement of speed."""

    entry: str
    role: str  # "sweep", "tune", "final" or "pace"
    rate: float
    seed: int
    resolved: Resolved
    key: str
    where: str = ""  # in an experiment of several experiments: which of them
    trial: Trial | None = None  # whose settings it has, where the plan tunes

    def label(self) -> str:
        """As it is named in progress and in tables."""
        name = f"{self.entry}, {self.where}" if self.where else self.entry
        if self.role == "pace":
            return f"{name}, speed"
        if self.role == "tune" and self.trial is not None:
            return f"{name}, trial {self.trial.number} ({written(self.trial.settings)})"
        return f"{name}, rate x{self.rate:g}, {self.role} seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """The rates of an entry that were tried or are wanted, and what is known of them."""

    rates: tuple[float, ...]
    losses: dict[float, float | None]  # by finished rate; None for one that diverged
    best: float | None  # None while not settled, or when there is none
    settled: bool
    broken: tuple[float, ...] = ()  # ended by something that says nothing about the rate
    source: Sweep | None = None  # the sweep, at another size, whose best rate is used here
    swept_at: str = ""  # that size

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the last one tried on a side, so that a better one may lie
        beyond; of a rate that was taken over, in the sweep that found it."""
        if self.source is not None:
            return self.source.at_edge
        return len(self.rates) > 1 and self.best in (min(self.rates), max(self.rates))


def diverged(row: Row) -> bool:
    """Whether a failed run says something about its learning rate: no other end does."""
    return row.get("kind") == "TrainingError" and "diverged" in row["error"]
