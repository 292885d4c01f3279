"""`holo bench brain`: brain-v1 against brain-v2 by three measurements of other commands.

The two models are trained on one text as in `bench compare`, with equal parameters; the very
configs of that comparison are measured as in `bench speed`; and both learn the task `name-recall`
as in `bench recall`. Each part keeps its own rows and page, so a stopped run resumes, and a part
that is finished is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holo_cli.bench.compare import page as compare_page
from holo_cli.bench.compare import run as compare_run
from holo_cli.bench.compare.summary import Summary, summarise
from holo_cli.bench.recall import page as recall_page
from holo_cli.bench.recall.plan import RecallPlan
from holo_cli.bench.recall.plan import named_plan as named_recall
from holo_cli.bench.recall.run import Recall, RecallScore, open_recall
from holo_cli.experiment.code_fingerprint import code_fingerprint
from holo_cli.experiment.entries import identity
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.machine import describe_machine
from holo_cli.experiment.plan import Plan, plan_path, read_plan
from holo_cli.experiment.result_log import ResultLog, Row, key_of, rows_path
from holo_cli.experiment.runner import Notify, OnEvent, RunOptions, execute
from holo_cli.speed import speed
from holo_cli.speed.measurements import MeasurementLog, ResolvedEntry

KIND = "brain"
V1, V2 = "brain-v1", "brain-v2"
RECALL_PLANS = {"tiny": "brain-tiny", "small": "brain"}
TASK = "name-recall"


def named_plans(preset: str) -> tuple[Plan, RecallPlan]:
    """Training and recall of a preset. Raises UsageError for an unknown name."""
    return read_plan(plan_path(KIND, preset)), named_recall(RECALL_PLANS[preset])


@dataclass(frozen=True)
class SpeedOptions:
    """How speed is measured: rounds, and seconds of training in each."""

    repeats: int = 5
    seconds: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return {"repeats": self.repeats, "seconds": self.seconds}


@dataclass
class BrainBench:
    """The parts with the rows that they have so far. `page` is the page of all of it."""

    page: Path
    experiment: Experiment
    recall: Recall
    rows: ResultLog  # of this bench: one row for each measurement of speed
    options: RunOptions  # of the comparison
    recall_options: RunOptions
    speed: SpeedOptions

    # -- what is to be done -----------------------------------------------------------------------

    def left(self) -> dict[str, int]:
        """Runs left of each part, as far as can be foreseen."""
        return {
            "loss": self.experiment.left(),
            "recall": self.recall.left(),
            "speed": int(self.speed_row() is None),
        }

    def run(self, *, notify: Notify, on_event: OnEvent | None = None) -> None:
        """Do what is missing. Raises Stopped on request, with everything finished saved."""
        if self.speed_row() is None:
            self._measure_speed(notify)
        compare_run.run(self.experiment, self.options, notify=notify, on_event=on_event)
        execute(self.recall, self.recall_options, notify=notify, on_event=on_event)

    # -- speed ------------------------------------------------------------------------------------

    def entries(self) -> list[ResolvedEntry]:
        """The models as they are trained in the comparison, brain-v1 first."""
        return [ResolvedEntry(name, self.experiment.configs[name]) for name in (V1, V2)]

    def _speed_key(self) -> str:
        models = {e.name: identity(e.resolved, "synthetic") for e in self.entries()}
        code = {e.name: code_fingerprint(e.model) for e in self.entries()}
        return key_of({"speed": models, "code": code, **self.speed.to_dict()})

    def speed_row(self) -> Row | None:
        """The measurement of these models with this code; None before it is made."""
        return self.rows.get(self._speed_key())

    def reported_speed(self) -> Row | None:
        """The measurement to report: `speed_row`, or the newest of models of these sizes with other
        code."""
        sizes = [self.experiment.described[name].parameters for name in (V1, V2)]
        older = [r for r in self.rows if [m.get("parameters") for m in r["rows"]] == sizes]
        return self.speed_row() or (older[-1] if older else None)

    def _measure_speed(self, notify: Notify) -> None:
        page = part_page(self.page, "speed")
        date = datetime.now(UTC).isoformat(timespec="seconds")
        log = MeasurementLog.open(rows_path(page), "speed", date)
        found = speed.measure(
            self.entries(), log, repeats=self.speed.repeats, seconds=self.speed.seconds,
            notify=notify,
        )  # fmt: skip
        speed.report(found).write(page)
        self.rows.add(
            {
                "key": self._speed_key(),
                "part": "speed",
                "rows": found.rows(),
                "busy": speed.busy_note(found),
                "machine": dict(found.machine),
                "date": date,
                **self.speed.to_dict(),
            }
        )

    # -- results ----------------------------------------------------------------------------------

    def machine(self) -> Mapping[str, Any]:
        """Where the newest rows are from; this machine without rows."""
        row = self.reported_speed()
        found = self.experiment.rows.machine() or (row or {}).get("machine")
        return found or describe_machine()

    def summary(self) -> Summary:
        return summarise(self.experiment)

    def scores(self) -> list[RecallScore]:
        return self.recall.scores()

    def write_parts(self) -> list[Path]:
        """Write the pages of the comparison and of recall; returns all pages that exist."""
        compare_page.write_page(self.experiment, self.summary(), self.options.page)
        recall_page.write_page(self.recall, self.scores(), self.recall_options.page)
        pages = [self.options.page, part_page(self.page, "speed"), self.recall_options.page]
        return [page for page in pages if page.exists()]


def part_page(page: Path, name: str) -> Path:
    """The page of a part, beside the page of all."""
    return page.with_name(f"{rows_path(page).stem}-{name}.html")


def open_bench(
    plan: Plan, recall: RecallPlan, options: RunOptions, speed: SpeedOptions
) -> BrainBench:
    """The bench with the rows beside its page, the one that `options` name. Raises UsageError and
    DataError for what cannot be compared."""
    page = options.page
    loss, memory = (replace(options, page=part_page(page, name)) for name in ("loss", "recall"))
    return BrainBench(
        page,
        compare_run.open_experiment(plan, loss),
        open_recall(recall, memory),
        ResultLog(rows_path(page), KIND),
        loss,
        memory,
        speed,
    )
