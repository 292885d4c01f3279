"""The runs of a ladder: one experiment for each rung and budget, and one file of rows for all.

An `Experiment` sizes the entries, knows its runs and finds their rows. At
a swept rung each entry's learning rate is swept, once for each budget; at any other rung the rate
found at the nearest swept rung for the same budget is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holo_cli.bench.experiment.experiment import Experiment, Run, Sweep
from holo_cli.bench.experiment.identity import resolve_entry
from holo_cli.bench.experiment.plan import Entry, Plan
from holo_cli.bench.experiment.result_log import ResultLog, rows_path
from holo_cli.bench.experiment.runner import Say, Watch, execute
from holo_cli.bench.ladder.plan import LadderPlan, Rung
from holo_cli.bench.machine import describe_machine
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import UsageError
from holo_cli.training.stopping import StopRequest

KIND = "ladder"


class RungExperiment(Experiment):
    """The comparison at one rung with one budget."""

    def __init__(
        self,
        plan: Plan,
        data: PreparedData,
        rows: ResultLog,
        rung: Rung,
        budget: float,
        rates_of: RungExperiment | None,
    ) -> None:
        """`rates_of` is the experiment whose rates are used; None: a sweep of its own."""
        self.rung, self.budget, self.rates_of = rung, budget, rates_of
        labels = {"rung": rung.name, "tokens_per_parameter": budget}
        super().__init__(plan, data, rows, labels, where(rung, budget))

    def sweep(self, entry: Entry) -> Sweep:
        """The entry's own sweep, or a settled one with the single rate that was transferred."""
        if self.rates_of is None:
            return super().sweep(entry)
        found = self.rates_of.sweep(entry)
        rates = () if found.best is None else (found.best,)
        at = self.rates_of.rung.name
        return Sweep(rates, {}, found.best, found.settled, found.broken, source=found, swept_at=at)

    @property
    def tokens(self) -> int:
        """Training tokens of a run."""
        resolved = self.configs[self.base]
        training = resolved.training
        return training.steps * training.batch_size * training.grad_accum * resolved.model.context

    @property
    def epochs(self) -> float:
        """How often a run reads the training text."""
        return self.tokens / self.data.token_count("train")


def where(rung: Rung, budget: float) -> str:
    """A rung and a budget as progress and tables name them."""
    return f"{rung.name} at {budget:g} tokens/parameter"


class Ladder:
    """A ladder plan on a prepared set, with the rows it has so far."""

    def __init__(self, plan: LadderPlan, data: PreparedData, rows: ResultLog) -> None:
        """Sizes every entry at every rung. Raises UsageError and DataError for what cannot be."""
        self.plan, self.data, self.rows = plan.check(), data, rows
        self.forgotten: list[str] = []
        self.base = plan.shared.entries[0].name
        self.experiments: dict[tuple[str, float], RungExperiment] = {}
        for budget in plan.budgets:
            for rung in sorted(
                plan.rungs, key=lambda r: r not in plan.swept_rungs
            ):  # swept ones first
                self.experiments[rung.name, budget] = self._opened(rung, budget)
        self._experiment_of: dict[str, RungExperiment] = {}

    def _opened(self, rung: Rung, budget: float) -> RungExperiment:
        swept = rung in self.plan.swept_rungs
        source = None if swept else self.experiments[self.plan.rates_from(rung).name, budget]
        try:
            plan = self._comparison(rung, budget)
            return RungExperiment(plan, self.data, self.rows, rung, budget, source)
        except UsageError as error:
            raise UsageError(
                f"Rung {rung.name}: {error.message}", next_step=error.next_step
            ) from error

    def _comparison(self, rung: Rung, budget: float) -> Plan:
        """The comparison at a rung, with as many steps as the budget has tokens for."""
        once = self.plan.comparison(rung, 1)
        resolved = resolve_entry(once, once.entries[0], self.data.path)
        training = resolved.training
        per_step = training.batch_size * training.grad_accum * resolved.model.context
        return self.plan.comparison(rung, max(1, round(budget * rung.parameters / per_step)))

    def ordered(self, budget: float) -> list[RungExperiment]:
        """The experiments of a budget, smallest rung first."""
        return [self.experiments[rung.name, budget] for rung in self.plan.rungs]

    # -- what there is to do (`runs.Experiment`) --------------------------------------------------

    def todo(self) -> list[Run]:
        """Runs without a row that can be named now, smallest rung first, equal ones once."""
        found: dict[str, Run] = {}
        for rung in self.plan.rungs:
            for budget in self.plan.budgets:
                experiment = self.experiments[rung.name, budget]
                for run in experiment.todo():
                    found.setdefault(run.key, run)
                    self._experiment_of.setdefault(run.key, experiment)
        return list(found.values())

    def left(self) -> int:
        """How many runs are still to do, as far as can be foreseen."""
        return sum(experiment.left() for experiment in self.experiments.values())

    def experiment_of(self, run: Run) -> Experiment:
        return self._experiment_of[run.key]

    def forget(self, *, failed: bool, entries: tuple[str, ...] = ()) -> None:
        """Do again what failed, or every run that these entries now have. Unknown entries raise
        UsageError."""
        # known for all before any is forgotten: a rung takes its rates from the sweep of another
        again = {place: c.runs_of(entries) for place, c in self.experiments.items()}
        for place, experiment in self.experiments.items():
            experiment.forget_runs(again[place], failed=failed)
        self.forgotten = [key for c in self.experiments.values() for key in c.forgotten]


@dataclass(frozen=True)
class Options:
    """How a ladder is run, as against what it is."""

    page: Path
    jobs: int = 1
    retry_failed: bool = False
    redo: tuple[str, ...] = ()


def open_ladder(plan: LadderPlan, options: Options) -> Ladder:
    """The ladder with its rows. Raises UsageError and DataError for what cannot be compared."""
    plan.check()
    data = PreparedData.open(plan.shared.data)
    ladder = Ladder(plan, data, ResultLog(rows_path(options.page), KIND))
    ladder.forget(failed=options.retry_failed, entries=options.redo)
    return ladder


def run(
    ladder: Ladder,
    options: Options,
    *,
    say: Say,
    watch: Watch | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Do every run that has no row yet. Raises Stopped after a request to stop, all saved."""
    execute(
        ladder,
        options.page,
        describe_machine,
        say=say,
        jobs=options.jobs,
        series=ladder.plan.series,
        watch=watch,
        stop=stop,
        again="The same command resumes there" + (", without --redo." if options.redo else "."),
    )


def sizes(ladder: Ladder) -> list[dict[str, Any]]:
    """What would be trained: a row for each rung, budget and entry, for --dry-run."""
    return [
        {
            "rung": experiment.rung.name,
            "tokens_per_parameter": budget,
            "entry": name,
            "parameters": experiment.described[name].parameters,
            "layers": resolved.model.layers,
            "width": resolved.model.width,
            "mlp_ratio": resolved.model.mlp_ratio,
            "steps": resolved.training.steps,
            "tokens": experiment.tokens,
            "epochs": experiment.epochs,
            "train_flops": experiment.tokens * experiment.described[name].train_flops_per_token,
            "rates_from": experiment.rung.name
            if experiment.rates_of is None
            else experiment.rates_of.rung.name,
        }
        for budget in ladder.plan.budgets
        for experiment in ladder.ordered(budget)
        for name, resolved in experiment.configs.items()
    ]
