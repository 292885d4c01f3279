"""Executes the training runs of an experiment in worker processes and appends a row for each.

An experiment (`Experiment`, `Ladder`) knows which runs are missing; this module turns
them into jobs and what the workers report into rows. A run normally has a process of its own.
Where runs take
seconds, starting the process costs as much as the run, so several may share one (`series`): the
losses are the same, but peak memory and processor time are then not known and stay out of the row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from holo_cli.bench.experiment.code_fingerprint import code_of
from holo_cli.bench.experiment.experiment import Experiment, Run
from holo_cli.bench.experiment.losses import test_bpb, test_loss, tune_loss
from holo_cli.bench.experiment.result_log import ResultLog, Row, beside
from holo_cli.bench.experiment.worker_pool import DONE, Event, Job, WorkerEvent, run_jobs
from holo_cli.errors import Stopped
from holo_cli.training.stopping import StopRequest

Say = Callable[[str], None]
Watch = Callable[[str, Event], None]  # the name of a run, and an event of it


class Runnable(Protocol):
    """What can be executed: runs that are missing, and the experiment each of them belongs to."""

    rows: ResultLog
    forgotten: list[str]

    def todo(self) -> list[Run]: ...

    def left(self) -> int: ...

    def experiment_of(self, run: Run) -> Experiment: ...


def execute(
    experiment: Runnable,
    page: Path,
    machine: Callable[[], dict[str, Any]],
    *,
    say: Say,
    jobs: int = 1,
    series: int = 1,
    watch: Watch | None = None,
    stop: StopRequest | None = None,
    left: Callable[[], str] = str,
    again: str = "The same command resumes there.",
) -> None:
    """Do every run that has no row yet, `jobs` at a time, up to `series` runs in one process.

    `machine` describes this machine and is called only if there is something to do. Raises Stopped
    after a request to stop, with everything saved and `again` as the next step. `left` may add to
    the number of runs left in each line how long they take.
    """
    stop = StopRequest() if stop is None else stop
    for key in experiment.forgotten:  # on record, so that a stop in between loses nothing
        experiment.rows.tombstone(key)
    if not experiment.todo():
        return
    desk = _Desk(experiment, machine(), say, watch, jobs, series, left)
    with stop.on_signals():
        done = run_jobs(desk.todo, desk.heard, beside(page, ".work"), jobs, lambda: bool(stop))
    if not done:
        raise Stopped(
            f"Stopped with about {experiment.left()} runs to do; what was done is in "
            f"{experiment.rows.path}.",
            next_step=again,
        )


@dataclass
class _Series:
    """The runs of one job, and the one that is under way."""

    runs: dict[str, Run]
    current: Run
    ended: set[str] = field(default_factory=set)  # keys of runs that have their row

    def under_way(self) -> Run | None:
        """The run that a dying process took with it: the current one, or, between two runs, the
        next one, so that a process that dies at once is not started for ever."""
        left = [run for key, run in self.runs.items() if key not in self.ended]
        return self.current if self.current in left else next(iter(left), None)


@dataclass
class _Desk:
    """Turns runs into jobs, and events into rows."""

    experiment: Runnable
    machine: dict[str, Any]
    say: Say
    watch: Watch | None
    jobs: int
    size: int
    left: Callable[[], str]
    began: dict[str, float] = field(default_factory=dict)  # by the key of the job
    known: dict[str, _Series] = field(default_factory=dict)  # by the key of the job

    def todo(self) -> Iterator[Job]:
        busy = {key for series in self.known.values() for key in series.runs}
        missing = [run for run in self.experiment.todo() if run.key not in busy]
        size = max(1, min(self.size, -(-len(missing) // self.jobs)))
        for at in range(0, len(missing), size):
            chunk = missing[at : at + size]
            key = chunk[0].key if size == 1 else f"series-{chunk[0].key}"
            # a job that is named is started at once, or asked for again
            self.known[key] = _Series({run.key: run for run in chunk}, chunk[0])
            self.began.setdefault(key, time.monotonic())
            yield self._job(key, chunk)
            # reached only when the pool wants a further job, so the one above is running

    def _job(self, key: str, chunk: list[Run]) -> Job:
        jobs = [_job(self.experiment.experiment_of(run), run) for run in chunk]
        if not key.startswith("series-"):
            return jobs[0]
        parts = [{"key": job.key, "task": job.task, **job.settings} for job in jobs]
        return Job(key, "series", {"resolved": parts[0]["resolved"], "parts": parts})

    def heard(self, told: WorkerEvent) -> None:
        series, event = self.known[told.job.key], told.event
        if event["event"] == "begin":
            series.current = series.runs[event["key"]]
            return
        if event["event"] == "part":
            series.ended.add(event["key"])
            self._ended(series.runs[event["key"]], event["end"])
            return
        alone = not told.job.key.startswith("series-")
        if told.ended:
            del self.known[told.job.key]
        if event["event"] == "failed" or (alone and event["event"] == DONE):
            lost = series.under_way()
            if lost is not None:
                self._ended(lost, event)
        elif self.watch is not None and (alone or not told.ended):
            self.watch(series.current.label(), event)

    def _ended(self, run: Run, event: Event) -> None:
        if self.watch is not None:
            self.watch(run.label(), event)
        experiment = self.experiment.experiment_of(run)
        row = _row(experiment, run, event, self.machine)
        if run.key in self.began and not row.get("resumed"):  # it had a process of its own
            row["wall_seconds"] = round(time.monotonic() - self.began[run.key], 2)
        experiment.add(row)
        runs = self.experiment.left()
        self.say(f"{_outcome(row, run)}  ({runs} run{'' if runs == 1 else 's'} left{self.left()})")


def _job(experiment: Experiment, run: Run) -> Job:
    # with_dtype once, here: a process that with_dtype for itself might find another format
    asked = run.resolved.training.dtype
    dtype = experiment.dtype if asked == "auto" else asked
    resolved = run.resolved.replace({"training.dtype": dtype}, source="the experiment").to_dict()
    if run.role == "pace":
        settings = {"resolved": resolved, "seconds": experiment.plan.seconds}
        return Job(run.key, "pace", settings)
    return Job(run.key, "train", {"resolved": resolved})


def _row(experiment: Experiment, run: Run, told: Event, machine: dict[str, Any]) -> Row:
    """Everything that is known of a finished run, with all its settings."""
    event = {key: value for key, value in told.items() if key != "event"}
    described = experiment.size(run.resolved)
    data = experiment.data
    row: Row = {
        "key": run.key,
        "status": "done" if told["event"] == DONE else "failed",
        "entry": run.entry,
        "model": run.resolved.model_name,
        "role": run.role,
        "rate": run.rate,
        "seed": run.seed,
        **experiment.labels,
    }
    costs = {
        "parameters": described.parameters,
        "active_parameters": described.active_parameters,
        "state_bytes": described.state_bytes,
        "train_flops_per_token": described.train_flops_per_token,
    }
    config = run.resolved.to_dict()["config"]
    config["data"].pop("path")  # of this machine; which text it was, its fingerprint says
    about = {
        "config": config,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "tokenizer": data.tokenizer.fingerprint,
            "vocab_size": experiment.vocab,
            "val_tokens": data.token_count("val"),
            "val_bytes": data.byte_count("val"),
        },
        "machine": machine | {"threads": event.pop("threads", machine["threads"])},
        # a worker that died at once did not say which code it was
        "code": event.pop("code", None) or code_of(run.resolved.model_name),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    tried = {} if run.trial is None else {"tune": run.trial.to_dict()}
    return row | tried | costs | event | about


def _outcome(row: Row, run: Run) -> str:
    if row["status"] != "done":
        return f"{run.label()}: failed: {row['error']}"
    if run.role == "pace":
        return f"{run.label()}: {row['steps']} steps in the time given"
    if run.role == "tune":
        return (
            f"{run.label()}: {tune_loss(row):.4f} nats per token on the tune half, "
            f"{row['train_seconds']:.0f} s"
        )
    return (
        f"{run.label()}: {test_loss(row):.4f} nats per token, {test_bpb(row):.4f} bits per byte, "
        f"{row['train_seconds']:.0f} s"
    )
