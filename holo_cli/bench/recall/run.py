"""`holo bench recall`: which model recalls what it has read? Synthetic tasks with known answers.

A loss on text hides this: most tokens can be predicted from the last few. In these tasks an answer
is somewhere in the past, at a place that changes, and must be found. Each entry is trained on each
task from scratch and tested on new rows, some longer than those it was trained on. Accuracy is
reported beside its price: the bytes of state that decoding keeps at that length.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from holo_cli.bench.recall.plan import RecallPlan, resolve_run
from holo_cli.config.resolve import Resolved
from holo_cli.experiment.entries import agrees, identity
from holo_cli.experiment.param_matching import describe
from holo_cli.experiment.plan import Entry
from holo_cli.experiment.result_log import ResultLog, Row, key_of, rows_path
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.runs import results, row_head, row_origin
from holo_cli.experiment.worker_pool import Event, Job
from holo_cli.tasks import TaskCase
from holo_cli.tasks.spec import TaskSpec
from holo_cli.training.precision import pick_device, pick_dtype

KIND = "recall"
FIRST_SEED = 1

NOT_RUN = "not run"  # the reason why a score has no accuracy


@dataclass(frozen=True)
class RecallRun:
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
class RecallScore:
    """The result of an entry in a case of a task: accuracies over seeds, at the rate that is best
    in the trained cases. No accuracies: not run, failed, or longer than the model can read.

    `why` is the reason, with the seeds that failed or were not run, at any rate. `failed` counts
    the seeds that failed at the chosen rate; they have no accuracy.
    """

    entry: str
    spec: TaskSpec
    case: TaskCase
    accuracies: list[float]
    state_bytes: int | None
    parameters: int
    rate: float | None
    why: str = ""
    failed: int = 0
    width: int | None = None  # in a plan with widths

    @property
    def trained(self) -> bool:
        return self.case in self.spec.train

    @property
    def accuracy(self) -> float | None:
        return statistics.mean(self.accuracies) if self.accuracies else None

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


def fast_format(run: RecallRun) -> str:
    """The number format that is asked for, or where that is left open the one that is fast here."""
    training = run.resolved.training
    return str(pick_dtype(training.dtype, pick_device(training.device))).removeprefix("torch.")


class Recall:
    """A plan with the rows it has so far, from which follows what is to be done."""

    def __init__(self, plan: RecallPlan, rows: ResultLog) -> None:
        """Builds every entry for every task on the meta device. Raises UsageError for a config that
        is not possible."""
        self.plan, self.rows = plan.check(), rows
        self.forgotten: list[str] = []
        self.series = 1
        self.entries: dict[str, Entry] = {entry.name: entry for entry in plan.at_widths()}
        self.families = plan.families()
        self.parameters: dict[tuple[str, str], int] = {}
        self.runs: list[RecallRun] = []
        self._agreed: dict[str, Row] = {}  # rows known to have the settings asked for
        seeds = range(FIRST_SEED, FIRST_SEED + plan.seeds)
        # all entries take a task in turn, so that an unfinished page compares them
        for spec, rate, seed, entry in product(
            plan.tasks, plan.rates, seeds, self.entries.values()
        ):
            resolved = resolve_run(plan, entry, spec, rate, seed)
            asked = {"sequences": plan.sequences, "solved": plan.solved}
            key = key_of(identity(resolved, "synthetic") | spec.to_dict() | asked)
            self.runs.append(RecallRun(entry.name, spec, rate, seed, resolved, key))
        for entry, spec in product(self.entries.values(), plan.tasks):
            described = describe(resolve_run(plan, entry, spec, 1.0, 0), spec.vocab_size)
            self.parameters[entry.name, spec.name] = described.parameters

    def row(self, run: RecallRun) -> Row | None:
        """The row of a run, if its settings still have the same meaning."""
        row = self.rows.get(run.key)
        if row is None or self._agreed.get(run.key) is row:
            return row
        if not agrees(row, run.resolved):
            return None
        self._agreed[run.key] = row
        return row

    def chosen(self, run: RecallRun) -> dict[str, str]:
        """Device and number format of a run, as its row records them.

        What "auto" means is decided once: all runs of a page that leave the format open have that
        of the first one, also after a stop.
        """
        device, asked = pick_device(run.resolved.training.device), run.resolved.training.dtype
        for row in self.rows if asked == "auto" else ():
            if row.get("device") == str(device) and row["config"]["training"]["dtype"] == "auto":
                return {"device": row["device"], "dtype": row["dtype"]}
        return {"device": str(device), "dtype": fast_format(run)}

    # -- what is to be done (`runner.Runnable`) ---------------------------------------------------

    def todo(self) -> list[RecallRun]:
        return [run for run in self.runs if self.row(run) is None]

    def left(self) -> int:
        return len(self.todo())

    def job(self, run: RecallRun) -> Job:
        dtype = {"training.dtype": self.chosen(run)["dtype"]}
        settings = {
            "resolved": run.resolved.replace(dtype, source="this machine").to_dict(),
            "spec": run.spec.to_dict(),
            "sequences": self.plan.sequences,
            "solved": self.plan.solved,
        }
        return Job(run.key, "recall", settings)

    def store(
        self, run: RecallRun, event: Event, machine: dict[str, Any], wall_seconds: float | None
    ) -> str:
        origin = row_origin(run, event, machine, "recall")
        row = row_head(run, event) | run.spec.to_dict() | results(event)
        row |= {"config": run.resolved.to_dict()["config"]} | origin | self.chosen(run)
        self.rows.add(row)
        if row["status"] != "done":
            return f"{run.label()}: failed: {row['error']}"
        cases = ", ".join(
            f"{case['length']}/{case['items']}: {percent(case['accuracy'])}"
            for case in row["cases"]
        )
        return f"{run.label()}: {cases} in {row['train_seconds']:.0f} s"

    def forget_failed(self) -> None:
        """Run failed runs again."""
        for row in list(self.rows):
            if row["status"] != "done":
                self.rows.forget(row["key"])

    # -- results ----------------------------------------------------------------------------------

    def scores(self) -> list[RecallScore]:
        """Every case of every task for every entry, in the plan's order."""
        return [
            score
            for spec in self.plan.tasks
            for entry in self.entries.values()
            for score in self._scores(entry, spec)
        ]

    def _scores(self, entry: Entry, spec: TaskSpec) -> Iterator[RecallScore]:
        runs = [r for r in self.runs if (r.entry, r.spec) == (entry.name, spec)]
        by_rate = [_Seeds.of(rate, runs, self.row) for rate in self.plan.rates]
        best = _best(by_rate)
        rows = best.done if best else []
        remarks = _remarks(by_rate) if best else []
        errors = sorted({row["error"] for seeds in by_rate for row in seeds.failed.values()})
        for number, case in enumerate(spec.cases):
            found = [row["cases"][number] for row in rows]
            accuracies = [f["accuracy"] for f in found if f["accuracy"] is not None]
            too_long = [f["error"] for f in found if "error" in f]
            missing = [] if accuracies else too_long or errors or [NOT_RUN]
            yield RecallScore(
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
class _Seeds:
    """The runs of one rate: rows of seeds that finished, of seeds that failed, seeds to do."""

    rate: float
    done: list[Row]
    failed: dict[int, Row]
    missing: list[int]

    @classmethod
    def of(
        cls, rate: float, runs: list[RecallRun], row: Callable[[RecallRun], Row | None]
    ) -> _Seeds:
        found = {run.seed: row(run) for run in runs if run.rate == rate}
        known = {seed: row for seed, row in found.items() if row is not None}
        return cls(
            rate,
            [row for row in known.values() if row["status"] == "done"],
            {seed: row for seed, row in known.items() if row["status"] != "done"},
            [seed for seed, row in found.items() if row is None],
        )

    @property
    def accuracy(self) -> float:
        """Mean over the trained cases. A failed seed counts as nothing correct, or a rate at which
        one seed survived would compete with the means of others."""
        cases = [case for row in self.done for case in row["cases"] if case["trained"]]
        share = len(self.done) / (len(self.done) + len(self.failed))
        return share * statistics.mean(case["accuracy"] or 0.0 for case in cases)

    def label(self, seeds: list[int]) -> str:
        if len(seeds) == len(self.done) + len(self.failed) + len(self.missing):
            return f"rate x{self.rate:g}"
        word = "seed" if len(seeds) == 1 else "seeds"
        return f"rate x{self.rate:g}, {word} {', '.join(map(str, seeds))}"


def _best(by_rate: list[_Seeds]) -> _Seeds | None:
    """The rate that is reported: among those with the fewest seeds missing, the most accurate."""
    known = [seeds for seeds in by_rate if seeds.done]
    missing = min((len(seeds.missing) for seeds in known), default=0)
    ready = [seeds for seeds in known if len(seeds.missing) == missing]
    return max(ready, key=lambda seeds: seeds.accuracy, default=None)


def _remarks(by_rate: list[_Seeds]) -> list[str]:
    """What the figures do not show: seeds that failed, and seeds that were not run."""
    remarks = []
    for seeds in by_rate:
        by_error: dict[str, list[int]] = {}
        for seed, row in seeds.failed.items():
            by_error.setdefault(row["error"], []).append(seed)
        for error, failed in by_error.items():
            remarks.append(f"{seeds.label(failed)} failed: {error}")
        if seeds.missing:
            remarks.append(f"{seeds.label(seeds.missing)} not run")
    return remarks


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def open_recall(plan: RecallPlan, options: RunOptions) -> Recall:
    """The bench with the rows beside its page."""
    recall = Recall(plan, ResultLog(rows_path(options.page), KIND))
    if options.retry_failed:
        recall.forget_failed()
    return recall


# -- time -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """The runs of one task, or of all (`task` is "all")."""

    task: str
    runs: int
    done: int
    seconds: float | None  # of the runs left; None while no run of the plan has finished

    @property
    def left(self) -> int:
        return self.runs - self.done

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task, "runs": self.runs, "done": self.done, "left": self.left,
            "seconds": self.seconds,
        }  # fmt: skip


def time_left(recall: Recall) -> list[Estimate]:
    """The time left of each task in the plan's order, then of all; for one run at a time.

    A run is expected to take the mean of its entry's runs of the same task; where there are none,
    the mean of all runs of the task, and else of all runs.
    """
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    left: dict[str, list[RecallRun]] = defaultdict(list)

    def groups(run: RecallRun) -> tuple[tuple[str, str], ...]:
        return (run.entry, run.spec.name), ("", run.spec.name), ("", "")

    for run in recall.runs:
        row = recall.row(run)
        if row is None:
            left[run.spec.name].append(run)
        elif row["status"] == "done":
            # older rows have only the time of training, without test and start
            for group in groups(run):
                seconds[group].append(
                    float(row["seconds" if "seconds" in row else "train_seconds"])
                )

    def expected(run: RecallRun) -> float:
        return statistics.mean(next(seconds[group] for group in groups(run) if seconds[group]))

    found = []
    for spec in recall.plan.tasks:
        runs = sum(run.spec == spec for run in recall.runs)
        todo = left[spec.name]
        needed = sum(map(expected, todo)) if seconds["", ""] or not todo else None
        found.append(Estimate(spec.name, runs, runs - len(todo), needed))
    needs = [e.seconds for e in found if e.seconds is not None]
    total = sum(needs) if len(needs) == len(found) else None
    found.append(Estimate("all", sum(e.runs for e in found), sum(e.done for e in found), total))
    return found
