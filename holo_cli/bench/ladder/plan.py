"""What a ladder trains: the entries of a comparison at several sizes and token budgets.

A ladder plan is a comparison's plan with rungs and budgets. A rung is a size: the number of
parameters that every entry is matched to, and the shape that matching starts from. A budget is a
number of training tokens per parameter. Each pair of a rung and a budget is one `Experiment`; all
share one file of rows. At a swept rung each entry's learning rate is swept, once for each budget;
any other rung uses the rate found at the nearest swept rung for the same budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from holo_cli.errors import UsageError, nearest
from holo_cli.experiment.entries import resolve_entry
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import (
    RESERVED,
    Entry,
    Plan,
    check_types,
    dotted,
    load_plan,
    plan_path,
    shared_settings,
)
from holo_cli.experiment.result_log import ResultLog, rows_path
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.runs import Run, Sweep
from holo_cli.experiment.stored_text import ExperimentText, open_text, train_tokens
from holo_cli.experiment.worker_pool import Event, Job

MIN_RUNGS = 3  # E, A and alpha are three unknowns
KIND = "ladder"
# fields of a comparison that a ladder sets for each rung or has no use for
NOT_USED = {"match", "target", "seconds"}


@dataclass(frozen=True)
class Rung:
    """A size. `settings` are dotted keys laid over the plan's base."""

    name: str
    parameters: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LadderPlan:
    """A whole ladder. `shared` is the plan of a comparison: entries, base, rates, seeds, ...

    `typed` are dotted settings from the command line, which override those of the rungs.
    """

    shared: Plan = field(default_factory=Plan)
    rungs: tuple[Rung, ...] = ()
    budgets: tuple[float, ...] = (10.0,)  # training tokens per parameter
    swept: tuple[str, ...] = ()  # rungs at which rates are swept; empty: the smallest rung
    ahead: float = 4.0  # curves are compared at this many times the largest compute
    resamples: int = 1000  # of the bootstrap
    series: int = 1  # number of runs that may share a process
    typed: Mapping[str, Any] = field(default_factory=dict)

    def select(self, names: Sequence[str]) -> LadderPlan:
        """Only these entries. Raises UsageError for unknown names."""
        return replace(self, shared=self.shared.select(names))

    def with_entries(self, more: Iterable[Entry]) -> LadderPlan:
        """With entries added; one whose name exists replaces it."""
        return replace(self, shared=self.shared.with_entries(more))

    def changed(
        self,
        shared: Mapping[str, Any],
        own: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        sets: Iterable[str] = (),
    ) -> LadderPlan:
        """With fields of the comparison and of the ladder replaced, and settings given on the
        command line: `settings` dotted, `sets` as typed ("key=value")."""
        typed = {**self.typed, **shared_settings({}, settings or {}, sets)}
        return replace(self, shared=replace(self.shared, **shared), typed=typed, **own)

    @property
    def swept_rungs(self) -> tuple[Rung, ...]:
        """The rungs at which rates are swept."""
        names = self.swept or tuple(rung.name for rung in self.rungs[:1])
        return tuple(rung for rung in self.rungs if rung.name in names)

    def rates_from(self, rung: Rung) -> Rung:
        """The swept rung that is nearest in size, by ratio; of two equally near the smaller."""
        return min(
            self.swept_rungs, key=lambda r: (_apart(r.parameters, rung.parameters), r.parameters)
        )

    def comparison(self, rung: Rung, steps: int) -> Plan:
        """The comparison at a rung, with runs of `steps` steps."""
        plan = self.shared.changed(
            {"match": "parameters", "target": rung.parameters},
            {**rung.settings, "training.steps": steps},
        )
        return replace(plan, base={**plan.base, **self.typed})

    def check(self) -> LadderPlan:
        """The plan itself, or UsageError for what makes no sense."""
        if len(self.rungs) < MIN_RUNGS:
            raise UsageError(
                f"A ladder needs at least {MIN_RUNGS} rungs to fit a curve; this plan has "
                f"{len(self.rungs)}.",
                next_step="Add tables like [rung.1m] with parameters = 1_000_000 to the plan.",
            )
        for below, above in zip(self.rungs, self.rungs[1:], strict=False):
            if above.parameters <= below.parameters:
                raise UsageError(
                    f"Rungs must be in ascending order of parameters: {below.name} has "
                    f"{below.parameters:,}, and {above.name} after it {above.parameters:,}.",
                    next_step="Put the smaller rung first, each size once.",
                )
        names = [rung.name for rung in self.rungs]
        for name in self.swept:
            if name not in names:
                raise UsageError(
                    f"swept names a rung '{name}', which the plan does not have.",
                    next_step=nearest(name, names),
                )
        wrong = {
            f"budgets {list(self.budgets)}": not self.budgets
            or len(set(self.budgets)) < len(self.budgets)
            or not all(_is_number(b) and 0 < b < math.inf for b in self.budgets),
            f"ahead {self.ahead}": not 1 < self.ahead < math.inf,
            f"resamples {self.resamples}": self.resamples < 100,
            f"series {self.series}": self.series < 1,
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise UsageError(
                    f"A ladder cannot have {what}.",
                    next_step="budgets are different numbers above 0 (tokens per parameter), ahead "
                    "is above 1, resamples at least 100, series at least 1.",
                )
        every = (self.shared.base, self.typed, *(e.settings for e in self.shared.entries),
                 *(r.settings for r in self.rungs))  # fmt: skip
        reserved = {**RESERVED, "training.steps": "it follows from the budgets"}
        for key in (key for settings in every for key in settings):
            if key in reserved:
                raise UsageError(
                    f"{key} is set by the ladder itself.",
                    next_step=f"Leave it out; {reserved[key]}.",
                )
        replace(self.shared, match="parameters").check()
        return self


def _apart(a: int, b: int) -> float:
    return abs(math.log(a / b))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- plan files -----------------------------------------------------------------------------------


def named_plan(name: str) -> LadderPlan:
    """A plan that comes with holo."""
    return read_plan(plan_path("ladder", name))


def read_plan(path: Path) -> LadderPlan:
    """Parse a plan file. Raises UsageError naming the file and the key that is wrong."""
    of_plan = {f.name for f in fields(Plan)} - {"entries"} - NOT_USED
    own = {f.name for f in fields(LadderPlan)} - {"shared", "rungs", "typed"}
    values, entries, rungs = load_plan(path, of_plan | own, "rung")
    check_types(values, Plan, path)
    check_types(values, LadderPlan, path)
    shared = Plan(**{k: v for k, v in values.items() if k in of_plan}, entries=entries)
    return LadderPlan(
        shared=shared,
        rungs=tuple(_read_rung(path, name, given) for name, given in rungs.items()),
        **{k: v for k, v in values.items() if k in own},
    )


def _read_rung(path: Path, name: str, given: Any) -> Rung:
    parameters = given.get("parameters") if isinstance(given, Mapping) else None
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise UsageError(
            f"{path}: [rung.{name}] needs parameters, a whole number above 0.",
            next_step="For example: parameters = 1_000_000",
        )
    settings = {key: value for key, value in given.items() if key != "parameters"}
    return Rung(name, parameters, dotted(settings))


# -- runs -----------------------------------------------------------------------------------------


class RungExperiment(Experiment):
    """The comparison at one rung with one budget."""

    def __init__(
        self,
        plan: Plan,
        data: ExperimentText,
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
        """The entry's own sweep, or a settled one with the transferred rate."""
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
    def epochs(self) -> float | None:
        """How often a run reads the training text; None where the rows do not say its size."""
        text = train_tokens(self.data)
        return None if text is None else self.tokens / text


def where(rung: Rung, budget: float) -> str:
    """A rung and a budget, as in progress lines and tables."""
    return f"{rung.name} at {budget:g} tokens/parameter"


class Ladder:
    """A ladder plan on a prepared set, with the rows it has so far."""

    def __init__(self, plan: LadderPlan, data: ExperimentText, rows: ResultLog) -> None:
        """Sizes every entry at every rung. Raises UsageError and DataError for what is not
        possible."""
        self.plan, self.data, self.rows = plan.check(), data, rows
        self.forgotten: list[str] = []
        self.series = plan.series
        self.base = plan.shared.entries[0].name
        self.experiments: dict[tuple[str, float], RungExperiment] = {}
        for budget in plan.budgets:
            # swept rungs first: the others take their rates
            for rung in sorted(plan.rungs, key=lambda r: r not in plan.swept_rungs):
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

    # -- what is to be done (`runner.Runnable`) ---------------------------------------------------

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

    def job(self, run: Run) -> Job:
        return self._experiment_of[run.key].job(run)

    def store(
        self, run: Run, event: Event, machine: dict[str, Any], wall_seconds: float | None
    ) -> str:
        return self._experiment_of[run.key].store(run, event, machine, wall_seconds)

    def forget(self, *, failed: bool, entries: tuple[str, ...] = ()) -> None:
        """Run failed runs again, and every run that these entries have now. Raises UsageError for
        unknown entries."""
        # collected before any is forgotten: a rung takes its rates from the sweep of another
        again = {place: c.runs_of(entries) for place, c in self.experiments.items()}
        for place, experiment in self.experiments.items():
            experiment.forget_runs(again[place], failed=failed)
        self.forgotten = [key for c in self.experiments.values() for key in c.forgotten]


def open_ladder(plan: LadderPlan, options: RunOptions) -> Ladder:
    """The ladder with its rows. Raises UsageError and DataError for what cannot be compared."""
    plan.check()
    rows = ResultLog(rows_path(options.page), KIND)
    data = open_text(plan.shared.data, rows, report_only=options.report_only)
    ladder = Ladder(plan, data, rows)
    ladder.forget(failed=options.retry_failed, entries=options.redo)
    return ladder


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
