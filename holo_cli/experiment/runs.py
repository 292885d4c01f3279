"""One training run of an experiment: its name, its job, and the row that is stored of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from holo_cli.config.resolve import Resolved
from holo_cli.experiment.code_fingerprint import code_fingerprint
from holo_cli.experiment.result_log import Row, test_bpb, test_loss, tune_loss
from holo_cli.experiment.search_space import format_settings
from holo_cli.experiment.worker_pool import DONE, Event, Job
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.experiment.experiment import Experiment
    from holo_cli.experiment.tuning import Trial

SWEEP_SEED = 0
THROUGHPUT = "pace"  # the role of a speed measurement, as rows store it


@dataclass(frozen=True)
class Run:
    """A run of the sweep, a trial, a reported run, or a measurement of speed."""

    entry: str
    role: str  # "sweep", "tune", "final" or THROUGHPUT
    rate: float
    seed: int
    resolved: Resolved
    key: str
    where: str = ""  # which experiment of several, as a ladder has them
    trial: Trial | None = None  # whose settings it has, where the plan tunes

    def label(self) -> str:
        """Its name in progress lines and tables."""
        name = f"{self.entry}, {self.where}" if self.where else self.entry
        if self.role == THROUGHPUT:
            return f"{name}, speed"
        if self.role == "tune" and self.trial is not None:
            return f"{name}, trial {self.trial.number} ({format_settings(self.trial.settings)})"
        return f"{name}, rate x{self.rate:g}, {self.role} seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """The learning rates of an entry that were tried or are still to be tried."""

    rates: tuple[float, ...]
    losses: dict[float, float | None]  # by finished rate; None for one that diverged
    best: float | None  # None while not settled, or where all diverged
    settled: bool
    broken: tuple[float, ...] = ()  # runs that ended for a reason other than their rate
    source: Sweep | None = None  # the sweep at another size whose best rate is used here
    swept_at: str = ""  # that size

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest tried, so that a better one may be
        beyond it. A transferred rate is judged in the sweep that found it."""
        if self.source is not None:
            return self.source.at_edge
        return len(self.rates) > 1 and self.best in (min(self.rates), max(self.rates))


def diverged(row: Row) -> bool:
    """Whether a failed run failed because of its settings: other failures say nothing about
    them."""
    return row.get("kind") == "TrainingError" and "diverged" in row["error"]


# -- jobs and rows --------------------------------------------------------------------------------


def training_job(experiment: Experiment, run: Run) -> Job:
    resolved = experiment.with_format(run.resolved).to_dict()
    if run.role == THROUGHPUT:
        settings = {"resolved": resolved, "seconds": experiment.plan.seconds}
        return Job(run.key, "throughput", settings)
    return Job(run.key, "train", {"resolved": resolved})


def training_row(experiment: Experiment, run: Run, event: Event, machine: dict[str, Any]) -> Row:
    """Everything that is known of a finished run, with all its settings."""
    described, data = experiment.size(run.resolved), experiment.data
    config = run.resolved.to_dict()["config"]
    config["data"].pop("path")  # of this machine; the fingerprint names the text
    origin = row_origin(run, event, machine)
    return (
        row_head(run, event)
        | {"role": run.role, **experiment.labels}
        | ({} if run.trial is None else {"tune": run.trial.to_dict()})
        | {
            "parameters": described.parameters,
            "active_parameters": described.active_parameters,
            "state_bytes": described.state_bytes,
            "train_flops_per_token": described.train_flops_per_token,
        }
        | results(event)
        | {
            "config": config,
            "data": {
                "name": data.name,
                "fingerprint": data.fingerprint,
                "tokenizer": data.tokenizer.fingerprint,
                "vocab_size": experiment.vocab,
                "train_tokens": data.token_count("train"),
                "val_tokens": data.token_count("val"),
                "val_bytes": data.byte_count("val"),
            },
        }
        | origin
    )


class AnyRun(Protocol):
    """What a training run and a run of recall have in common."""

    @property
    def entry(self) -> str: ...
    @property
    def rate(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def resolved(self) -> Resolved: ...
    @property
    def key(self) -> str: ...
    def label(self) -> str: ...


def row_head(run: AnyRun, event: Event) -> Row:
    return {
        "key": run.key,
        "status": "done" if event["event"] == DONE else "failed",
        "entry": run.entry,
        "model": run.resolved.model_name,
        "rate": run.rate,
        "seed": run.seed,
    }


def results(event: Event) -> Row:
    """A worker's last event without what `row_origin` stores."""
    return {k: v for k, v in event.items() if k not in ("event", "threads", "code")}


def row_origin(run: AnyRun, event: Event, machine: dict[str, Any], task: str = "train") -> Row:
    """Machine, code and date of a row. A worker that crashed at once did not report its code."""
    return {
        "machine": machine | {"threads": event.get("threads", machine["threads"])},
        "code": event.get("code") or code_fingerprint(run.resolved.model_name, task),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def outcome(run: Run, row: Row) -> str:
    """A finished run in one line."""
    if row["status"] != "done":
        return f"{run.label()}: failed: {row['error']}"
    if run.role == THROUGHPUT:
        return f"{run.label()}: {counted(row['steps'], 'step')} in the time given"
    if run.role == "tune":
        return (
            f"{run.label()}: {tune_loss(row):.4f} nats per token on the tune half, "
            f"{row['train_seconds']:.0f} s"
        )
    return (
        f"{run.label()}: {test_loss(row):.4f} nats per token, {test_bpb(row):.4f} bits per byte, "
        f"{row['train_seconds']:.0f} s"
    )
