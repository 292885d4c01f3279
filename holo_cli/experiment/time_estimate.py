"""Estimates how long a comparison takes: from finished runs on this machine, else by measuring.

A run costs its process's start, its steps and its evaluations. Rows of the same entry and
size give all three; an entry without such rows is measured for a few steps in a worker process, as
many at a time as the comparison will run, so that they share the cores as the runs will. A sweep
that has to be extended, and other work on the machine, are not foreseen.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli.errors import Stopped
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.result_log import ResultLog, Row
from holo_cli.experiment.worker_pool import DONE, Job, WorkerEvent, run_jobs
from holo_cli.hardware import cpu_name
from holo_cli.training.stopping import StopRequest
from holo_cli.wording import counted

START = 5.0  # assumed seconds until a process trains
SHORT = 100  # steps of a run that takes no longer than measuring its speed
ALIKE = 0.1  # relative difference in parameters up to which a row is used for an entry
RECENT = 5  # newest rows of an entry that are used


@dataclass(frozen=True)
class Cost:
    """Seconds of one entry: the start of its process, a step, an evaluation."""

    start: float
    step: float
    evaluation: float

    def run(self, steps: float, evaluations: int) -> float:
        return self.start + steps * self.step + evaluations * self.evaluation


@dataclass
class TimeEstimate:
    """The costs of the entries, as far as they are known. `measured` is filled by `measure`."""

    experiment: Experiment
    jobs: int = 1
    measured: dict[str, Cost] = field(default_factory=dict)

    def cost(self, entry: str) -> Cost | None:
        """From the newest finished runs of an entry, else measured; None without either."""
        rows = [row for row in self.experiment.rows if self._applies(row, entry)][-RECENT:]
        if not rows:
            return self.measured.get(entry)
        known = self.measured.get(entry)
        starts = [
            max(0.0, row["wall_seconds"] - row["train_seconds"] - row["eval_seconds"])
            for row in rows
            if row.get("wall_seconds") is not None
        ]
        return Cost(
            start=statistics.median(starts) if starts else known.start if known else START,
            step=statistics.median(row["train_seconds"] / row["steps"] for row in rows),
            evaluation=statistics.median(
                row["eval_seconds"] / max(1, len(row["curve"])) for row in rows
            ),
        )

    def _applies(self, row: Row, entry: str) -> bool:
        """Whether a row's times hold for runs of this entry on this machine."""
        if row["entry"] != entry or row["status"] != "done" or "train_seconds" not in row:
            return False
        resolved, machine = self.experiment.configs[entry], row["machine"]
        training = row["config"]["training"]
        size = self.experiment.described[entry].parameters
        return (
            (machine.get("cpu"), machine.get("cores")) == (cpu_name(), os.cpu_count())
            and machine.get("threads") == _threads(self.jobs)
            and row.get("dtype") in (None, self.experiment.with_format(resolved).training.dtype)
            and row["model"] == resolved.model_name
            and row["config"]["model"]["context"] == resolved.model.context
            and training["batch_size"] == resolved.training.batch_size
            and training["grad_accum"] == resolved.training.grad_accum
            and abs(row["parameters"] - size) <= ALIKE * size
        )

    def unknown(self) -> list[str]:
        """Entries with runs to do whose cost is not known."""
        waiting = dict.fromkeys(entry for entry, _, _ in self.experiment.pending())
        return [entry for entry in waiting if self.cost(entry) is None]

    def is_short(self, entries: Sequence[str]) -> bool:
        """Whether these entries' runs are too short to be worth measuring first."""
        steps = [self.experiment.configs[entry].training.steps for entry in entries]
        return self.experiment.plan.match != "time" and max(steps, default=0) <= SHORT

    def measure(self, folder: Path, stop: StopRequest) -> None:
        """Measure every unknown entry. Raises Stopped after a request to stop.

        An entry that fails stays unknown: its runs fail as well, with the reason.
        """
        waiting = {f"cost-{i}": entry for i, entry in enumerate(self.unknown())}
        began: dict[str, float] = {}

        def todo() -> Iterator[Job]:
            for key, entry in list(waiting.items()):
                began.setdefault(key, time.monotonic())
                resolved = self.experiment.with_format(self.experiment.configs[entry])
                yield Job(key, "cost", {"resolved": resolved.to_dict()})

        def on_event(received: WorkerEvent) -> None:
            if not received.is_last:
                return
            entry = waiting.pop(received.job.key)
            event = received.event
            if event["event"] == DONE:
                wall = time.monotonic() - began[received.job.key]
                start = max(0.0, wall - event["measuring_seconds"])
                self.measured[entry] = Cost(
                    start, event["step_seconds"], event["evaluation_seconds"]
                )

        with stop.on_signals():
            done = run_jobs(todo, on_event, folder, self.jobs, lambda: bool(stop))
        if not done:
            raise Stopped("Stopped before the first run.", next_step="Give the command again.")

    def seconds(self) -> float | None:
        """Seconds until everything is done; None where the cost of an entry is not known."""
        total, count = 0.0, 0
        for entry, steps, evaluations in self.experiment.pending():
            cost = self.cost(entry)
            if cost is None:
                return None
            if steps is None or self.experiment.is_timed(entry):
                share = 1.0 if evaluations > 1 else self.experiment.plan.sweep_share
                total += cost.run(0, evaluations) + share * self.experiment.plan.seconds
            else:
                total += cost.run(steps, evaluations)
            count += 1
        return total / max(1, min(self.jobs, count))

    def label(self) -> str:
        """ ", about 12 minutes" for what is left to do; "" where it is not known."""
        seconds = self.seconds()
        return "" if not seconds else f", about {minutes(seconds)}"

    def announce(self, measure: Callable[[], None] | None, notify: Callable[[str], None]) -> None:
        """Report how long it will take. `measure` is called for entries without rows; None (in a
        dry run) reports only what is known."""
        runs = self.experiment.left()
        if not runs:
            return
        if note := format_note(
            self.experiment.dtype, self.experiment.dtype_here, self.experiment.rows
        ):
            notify(note)
        unknown = self.unknown()
        from_rows = not unknown
        if unknown and not self.is_short(unknown) and measure is not None:
            notify(f"Measuring the speed of {', '.join(unknown)} for a few steps ...")
            measure()
        seconds = self.seconds()
        side = f", {self.jobs} at a time" if self.jobs > 1 else ""
        if seconds is not None:
            how = "by earlier runs on this machine" if from_rows else "by a short measurement"
            more = "" if self.experiment.tuning else "; more if a sweep has to be extended"
            notify(
                f"It will take about {minutes(seconds)} ({counted(runs, 'run')}{side}; "
                f"{how}{more})."
            )
        elif self.is_short(unknown):
            notify(
                f"Runs of at most {SHORT} steps are not measured beforehand; the time left is "
                "shown after the first runs."
            )
        elif measure is None:
            notify(
                "How long it will take is not known: there is no finished run on this machine of "
                f"{', '.join(unknown)}. Speed is measured before the first run."
            )
        else:
            notify(
                f"How long it will take is not known: {', '.join(self.unknown())} could not be "
                "measured."
            )

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        seconds = self.seconds()
        return {
            "runs": self.experiment.left(),
            "jobs": self.jobs,
            "minutes": None if seconds is None else round(seconds / 60, 1),
            "not_known": self.unknown(),
        }


def format_note(runs_in: str, fast: str, rows: ResultLog) -> str | None:
    """What to tell a reader whose runs compute in the number format of finished rows, where this
    machine is faster in another one."""
    if runs_in == fast:
        return None
    return (
        f"The runs compute in {runs_in}, as the finished ones in {rows.path.name} do; on this "
        f"machine {fast} is faster. For runs of their own, add --dtype {fast} and another --out."
    )


def minutes(seconds: float) -> str:
    """A duration, rounded as an estimate should be."""
    whole = max(1, math.ceil(seconds / 60))
    if whole < 120:
        return counted(whole, "minute")
    return f"{whole / 60:.1f} hours"


def _threads(jobs: int) -> int:
    """Threads of a worker when `jobs` run side by side, as `WorkerPool` sets them."""
    import torch

    return torch.get_num_threads() if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
