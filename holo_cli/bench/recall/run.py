"""`holo bench recall`: who can bring back what it has read? Synthetic tasks with known answers.

Losses on text hide this: most tokens can be told from the last few. Here nothing can: an answer is
somewhere in the past, at a place that changes, and must be found. Each entry is trained on each
task from scratch and tested on rows drawn anew, some longer than it was trained on. Beside the
accuracy stands what it was bought with: the bytes of state that decoding keeps at that length.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from holo_cli.bench.experiment.code_fingerprint import code_of
from holo_cli.bench.experiment.identity import agrees, identity
from holo_cli.bench.experiment.param_matching import describe
from holo_cli.bench.experiment.plan import Entry
from holo_cli.bench.experiment.result_log import ResultLog, Row, beside, key_of, rows_path
from holo_cli.bench.experiment.worker_pool import DONE, Job, WorkerEvent, run_jobs
from holo_cli.bench.machine import describe_machine
from holo_cli.bench.recall.plan import RecallPlan, TaskSpec, resolve_run
from holo_cli.bench.tasks import Case
from holo_cli.config.resolve import Resolved
from holo_cli.errors import Stopped
from holo_cli.training.precision import pick_device, pick_dtype
from holo_cli.training.stopping import StopRequest

KIND = "recall"
FIRST_SEED = 1
Say = Callable[[str], None]
Watch = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Run:
    """One entry on one task, with one rate and seed."""

    entry: str
    spec: TaskSpec
    rate: float
    seed: int
    resolved: Resolved
    key: str

    def label(self) -> str:
        return f"{self.entry}, {self.spec.name}, rate x{self.rate:g}, seed {self.seed}"


@dataclass(frozen=True)
class Score:
    """How an entry does in a case of a task: accuracies over seeds, at the rate that is best for
    the trained cases. No accuracies: not run, failed, or more than the model can read.

    `why` says so, and which seeds failed or were not run, at any rate. `failed` counts those that
    failed at the rate that counts; their accuracies are not there.
    """

    entry: str
    spec: TaskSpec
    case: Case
    accuracies: list[float]
    state_bytes: int | None
    parameters: int
    rate: float | None
    why: str = ""
    failed: int = 0
    width: int | None = None  # of a plan with widths

    @property
    def trained(self) -> bool:
        return self.case in self.spec.train

    @property
    def accuracy(self) -> float | None:
        return statistics.mean(self.accuracies) if self.accuracies else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """Lowest and highest over the seeds."""
        return (min(self.accuracies), max(self.accuracies)) if self.accuracies else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "entry": self.entry,
            "width": self.width,
            "task": self.spec.name,
            "length": self.case.length,
            "items": self.case.items,
            "trained": self.trained,
            "accuracy": self.accuracy,
            "accuracies": self.accuracies,
            "chance": self.spec.task.chance,
            "state_bytes": self.state_bytes,
            "parameters": self.parameters,
            "rate": self.rate,
            "why": self.why,
            "failed": self.failed,
        }


class Recall:
    """A plan with the rows it has so far; what is to do follows from them."""

    def __init__(self, plan: RecallPlan, rows: ResultLog) -> None:
        """Resolves and builds (on the meta device) every entry for every task. Raises UsageError
        for what cannot be."""
        self.plan, self.rows = plan.check(), rows
        self.entries: dict[str, Entry] = {entry.name: entry for entry in plan.spread_out()}
        self.families = plan.families()
        self.parameters: dict[tuple[str, str], int] = {}
        self.runs: list[Run] = []
        self._agreed: dict[str, Row] = {}  # rows known to be of the settings asked for
        seeds = range(FIRST_SEED, FIRST_SEED + plan.seeds)
        # all entries take a task in turn, so that a page that is not finished compares them
        for spec, rate, seed, entry in product(
            plan.tasks, plan.rates, seeds, self.entries.values()
        ):
            self.runs.append(self._run(entry, spec, rate, seed))
        for entry, spec in product(self.entries.values(), plan.tasks):
            resolved = resolve_run(plan, entry, spec, 1.0, 0)
            described = describe(resolved, spec.vocab_size)
            self.parameters[entry.name, spec.name] = described.parameters

    def _run(self, entry: Entry, spec: TaskSpec, rate: float, seed: int) -> Run:
        resolved = resolve_run(self.plan, entry, spec, rate, seed)
        asked = {"sequences": self.plan.sequences, "solved": self.plan.solved}
        key = key_of(identity(resolved, "synthetic") | spec.to_dict() | asked)
        return Run(entry.name, spec, rate, seed, resolved, key)

    def row(self, run: Run) -> Row | None:
        """The row of a run, if it was made with settings that still mean the same."""
        row = self.rows.get(run.key)
        if row is None or self._agreed.get(run.key) is row:
            return row
        if not agrees(row, run.resolved):
            return None
        self._agreed[run.key] = row
        return row

    def chosen(self, run: Run) -> dict[str, str]:
        """Device and number format of a run, as its row records them.

        The machine is asked once what "auto" is: all runs of a page that leave it open have the
        format of the first one, also after a stop.
        """
        device, dtype = pick_device(run.resolved.training.device), run.resolved.training.dtype
        for row in self.rows if dtype == "auto" else ():
            if row.get("device") == str(device) and row["config"]["training"]["dtype"] == "auto":
                return {"device": row["device"], "dtype": row["dtype"]}
        name = str(pick_dtype(dtype, device)).removeprefix("torch.")
        return {"device": str(device), "dtype": name}

    def todo(self) -> list[Run]:
        return [run for run in self.runs if self.row(run) is None]

    def forget(self, *, failed: bool, entries: tuple[str, ...] = ()) -> None:
        """Do again what failed, or everything of some entries."""
        for row in list(self.rows):
            if (failed and row["status"] != "done") or row["entry"] in entries:
                self.rows.forget(row["key"])

    # -- what came of it --------------------------------------------------------------------------

    def scores(self) -> list[Score]:
        """Every case of every task for every entry, in the plan's order."""
        return [
            score
            for spec in self.plan.tasks
            for entry in self.entries.values()
            for score in self._scores(entry, spec)
        ]

    def _scores(self, entry: Entry, spec: TaskSpec) -> Iterator[Score]:
        runs = [r for r in self.runs if (r.entry, r.spec) == (entry.name, spec)]
        tried = {rate: _Tried.of(rate, runs, self.row) for rate in self.plan.rates}
        best = _best(list(tried.values()))
        chosen = best.done if best else []
        remarks = _remarks(list(tried.values())) if best else []
        errors = sorted({row["error"] for t in tried.values() for row in t.failed.values()})
        for number, case in enumerate(spec.cases):
            found = [row["cases"][number] for row in chosen]
            accuracies = [f["accuracy"] for f in found if f["accuracy"] is not None]
            refused = [f["error"] for f in found if "error" in f]
            missing = [] if accuracies else refused or errors or ["not run"]
            yield Score(
                entry.name,
                spec,
                case,
                accuracies,
                found[0]["state_bytes"] if found else None,
                self.parameters[entry.name, spec.name],
                best.rate if best else None,
                "; ".join(dict.fromkeys([*missing, *remarks])),
                len(best.failed) if best else 0,
                self.families[entry.name][1],
            )


@dataclass(frozen=True)
class _Tried:
    """What came of a rate: rows of seeds that ended, rows of seeds that failed, seeds to do."""

    rate: float
    done: list[Row]
    failed: dict[int, Row]
    missing: list[int]

    @classmethod
    def of(cls, rate: float, runs: list[Run], row: Callable[[Run], Row | None]) -> _Tried:
        found = {run.seed: row(run) for run in runs if run.rate == rate}
        known = {seed: row for seed, row in found.items() if row is not None}
        return cls(
            rate,
            [row for row in known.values() if row["status"] == "done"],
            {seed: row for seed, row in known.items() if row["status"] != "done"},
            [seed for seed, row in found.items() if row is None],
        )

    @property
    def trained(self) -> float:
        """Mean accuracy over the cases that were trained on; a seed that failed has none right, or
        a rate at which one seed survived would stand against the others' means."""
        cases = [case for row in self.done for case in row["cases"] if case["trained"]]
        share = len(self.done) / (len(self.done) + len(self.failed))
        return share * statistics.mean(case["accuracy"] or 0.0 for case in cases)


def _best(tried: list[_Tried]) -> _Tried | None:
    """The rate that counts: of those with the fewest seeds to do the best on the trained cases."""
    known = [t for t in tried if t.done]
    left = min((len(t.missing) for t in known), default=0)
    ready = [t for t in known if len(t.missing) == left]
    return max(ready, key=lambda t: t.trained, default=None)


def _remarks(tried: list[_Tried]) -> list[str]:
    """What the figures do not show: seeds that failed, and those that were not run."""
    said = []
    for t in tried:
        by_error: dict[str, list[int]] = {}
        for seed, row in t.failed.items():
            by_error.setdefault(row["error"], []).append(seed)
        for error, seeds in by_error.items():
            said.append(f"{_which(t, seeds)} failed: {error}")
        if t.missing:
            said.append(f"{_which(t, t.missing)} not run")
    return said


def _which(tried: _Tried, seeds: list[int]) -> str:
    if len(seeds) == len(tried.done) + len(tried.failed) + len(tried.missing):
        return f"rate x{tried.rate:g}"
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"rate x{tried.rate:g}, {word} {', '.join(map(str, seeds))}"


def open_recall(
    plan: RecallPlan, page: Path, *, retry_failed: bool = False, redo: tuple[str, ...] = ()
) -> Recall:
    """The bench with the rows beside its page."""
    recall = Recall(plan, ResultLog(rows_path(page), KIND))
    recall.forget(failed=retry_failed, entries=redo)
    return recall


def run(
    recall: Recall,
    page: Path,
    *,
    jobs: int = 1,
    say: Say,
    watch: Watch | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Do every run that has no row yet. Raises Stopped after a request to stop."""
    stop = StopRequest() if stop is None else stop
    if not recall.todo():
        return
    machine = describe_machine()
    here = {run.key: run for run in recall.runs}

    def todo() -> Iterator[Job]:
        for run in recall.todo():
            dtype = {"training.dtype": recall.chosen(run)["dtype"]}
            settings = {
                "resolved": run.resolved.replace(dtype, source="this machine").to_dict(),
                "spec": run.spec.to_dict(),
                "sequences": recall.plan.sequences,
                "solved": recall.plan.solved,
            }
            yield Job(run.key, "recall", settings)

    def heard(told: WorkerEvent) -> None:
        run = here[told.job.key]
        if watch is not None:
            watch(run.label(), told.event)
        if told.event["event"] in (DONE, "failed"):
            row = _row(run, told, machine) | recall.chosen(run)
            recall.rows.add(row)
            say(f"{_outcome(row, run)}  ({len(recall.todo())} left)")

    with stop.on_signals():
        done = run_jobs(todo, heard, beside(page, ".work"), jobs, lambda: bool(stop))
    if not done:
        raise Stopped(
            f"Stopped with {len(recall.todo())} runs to do; what was done is in "
            f"{recall.rows.path}.",
            next_step="The same command goes on from there.",
        )


def _row(run: Run, told: WorkerEvent, machine: dict[str, Any]) -> Row:
    event = {key: value for key, value in told.event.items() if key != "event"}
    return {
        "key": run.key,
        "status": "done" if told.event["event"] == DONE else "failed",
        "entry": run.entry,
        "model": run.resolved.model_name,
        "rate": run.rate,
        "seed": run.seed,
        **run.spec.to_dict(),
        "machine": machine | {"threads": event.pop("threads", machine["threads"])},
        **event,
        "config": run.resolved.to_dict()["config"],
        "code": event.pop("code", None) or code_of(run.resolved.model_name, "recall"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _outcome(row: Row, run: Run) -> str:
    if row["status"] != "done":
        return f"{run.label()}: failed: {row['error']}"
    cases = ", ".join(
        f"{case['length']}/{case['items']}: {accuracy(case['accuracy'])}" for case in row["cases"]
    )
    return f"{run.label()}: {cases} in {row['train_seconds']:.0f} s"


def accuracy(value: float | None) -> str:
    """A share as per cent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.0f} %"
