"""Runs what is missing of an experiment in worker processes and stores a row of each run.

`holo bench compare`, `ladder`, `controls` and `recall` share it. A run normally has a process of
its own. Where runs take seconds, starting the process costs as much as the run, so several may
share one (`series`): the losses are the same, but peak memory and processor time of a run are then
unknown and missing from its row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from holo_cli.errors import Stopped
from holo_cli.experiment.launchers import Launcher
from holo_cli.experiment.machine import describe_machine
from holo_cli.experiment.result_log import ResultLog, beside
from holo_cli.experiment.runs import AnyRun
from holo_cli.experiment.worker_pool import (
    DONE,
    FAILED,
    LOCAL_LAUNCHER,
    Event,
    Job,
    WorkerEvent,
    run_jobs,
)
from holo_cli.training.stopping import StopRequest
from holo_cli.wording import counted

Notify = Callable[[str], None]  # called with a line about what has happened
OnEvent = Callable[[str, Event], None]  # called with the label of a run and one of its events
R = TypeVar("R", bound=AnyRun)


@dataclass(frozen=True)
class RunOptions:
    """How an experiment is run. `redo` are entries whose rows no longer count."""

    page: Path
    jobs: int = 1
    retry_failed: bool = False
    redo: tuple[str, ...] = ()
    launcher: Launcher = LOCAL_LAUNCHER
    report_only: bool = False  # nothing will be run, so the prepared set need not be here


class Runnable(Protocol[R]):
    """An experiment: which runs are missing, how to run one, and how to store its row."""

    rows: ResultLog
    forgotten: list[str]  # keys of rows that no longer count
    series: int  # how many runs may share a process

    def todo(self) -> list[R]:
        """Runs without a row that can be named now, each once."""
        ...

    def left(self) -> int:
        """How many runs are still to do, as far as can be foreseen."""
        ...

    def job(self, run: R) -> Job: ...

    def store(
        self, run: R, event: Event, machine: dict[str, Any], wall_seconds: float | None
    ) -> str:
        """Store the row of a finished run; returns the run and its result in one line.

        `wall_seconds` are those of its process; None where it shared one."""
        ...


def execute(
    experiment: Runnable[R],
    options: RunOptions,
    *,
    notify: Notify,
    on_event: OnEvent | None = None,
    stop: StopRequest | None = None,
    time_left: Callable[[], str] = str,
) -> None:
    """Do every run that has no row yet, `options.jobs` at a time.

    `time_left` is added to the number of runs left in each line. Raises Stopped after a request to
    stop, with everything saved.
    """
    stop = StopRequest() if stop is None else stop
    for key in experiment.forgotten:  # stored first, so that a stop in between loses nothing
        experiment.rows.tombstone(key)
    if not experiment.todo():
        return
    machine = describe_machine()
    scheduler = _Scheduler(experiment, machine, notify, on_event, options.jobs, time_left)
    folder = beside(options.page, ".work")
    with stop.on_signals():
        done = run_jobs(
            scheduler.todo, scheduler.on_worker_event, folder, options.jobs, lambda: bool(stop),
            options.launcher,
        )  # fmt: skip
    if not done:
        raise Stopped(
            f"Stopped with about {counted(experiment.left(), 'run')} to do; finished runs are in "
            f"{experiment.rows.path}.",
            next_step="The same command, without --redo, resumes there."
            if options.redo
            else "The same command resumes there.",
        )


@dataclass
class _Series(Generic[R]):
    """The runs of one job, and the current one."""

    runs: dict[str, R]
    current: R
    shared: bool  # whether several runs share the process
    finished: set[str] = field(default_factory=set)  # keys of runs that have their row

    def lost(self) -> R | None:
        """The run that a crashed process took with it: the current one or, between two runs, the
        next one, so that a process that crashes at once is not started for ever."""
        left = [run for key, run in self.runs.items() if key not in self.finished]
        return self.current if self.current in left else next(iter(left), None)


@dataclass
class _Scheduler(Generic[R]):
    """Turns runs into jobs, and events into rows."""

    experiment: Runnable[R]
    machine: dict[str, Any]
    notify: Notify
    on_event: OnEvent | None
    jobs: int
    time_left: Callable[[], str]
    started: dict[str, float] = field(default_factory=dict)  # by the key of the job
    series: dict[str, _Series[R]] = field(default_factory=dict)  # by the key of the job

    def todo(self) -> Iterator[Job]:
        busy = {key for series in self.series.values() for key in series.runs}
        missing = [run for run in self.experiment.todo() if run.key not in busy]
        size = max(1, min(self.experiment.series, -(-len(missing) // self.jobs)))
        for at in range(0, len(missing), size):
            runs = missing[at : at + size]
            key = runs[0].key if size == 1 else f"series-{runs[0].key}"
            # a job that is yielded is started at once, or yielded again later
            self.series[key] = _Series({run.key: run for run in runs}, runs[0], size > 1)
            self.started.setdefault(key, time.monotonic())
            jobs = [self.experiment.job(run) for run in runs]
            if size == 1:
                yield jobs[0]
            else:
                parts = [{"key": job.key, "task": job.task, **job.settings} for job in jobs]
                yield Job(key, "series", {"resolved": parts[0]["resolved"], "parts": parts})

    def on_worker_event(self, received: WorkerEvent) -> None:
        key, event = received.job.key, received.event
        series = self.series[key]
        if event["event"] == "begin":
            series.current = series.runs[event["key"]]
        elif event["event"] == "part":
            series.finished.add(event["key"])
            self._finish(series.runs[event["key"]], event["end"])
        else:
            if received.is_last:
                del self.series[key]
            if event["event"] == FAILED or (not series.shared and event["event"] == DONE):
                lost = series.lost()
                if lost is not None:
                    self._finish(lost, event)
            elif self.on_event is not None and not (series.shared and received.is_last):
                self.on_event(series.current.label(), event)

    def _finish(self, run: R, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(run.label(), event)
        wall = event.pop("wall_seconds", None)  # as a task of a cluster tells it, without waiting
        if (
            wall is None and run.key in self.started and not event.get("resumed")
        ):  # it had its own process
            wall = round(time.monotonic() - self.started[run.key], 2)
        if event.get("resumed"):
            wall = None  # only the last part is known
        machine = event.pop("machine", self.machine)
        line = self.experiment.store(run, event, machine, wall)
        left = self.experiment.left()
        self.notify(f"{line}  ({counted(left, 'run')} left{self.time_left()})")
