"""What a ladder trains: the entries of a comparison at several sizes and token budgets.

A ladder plan is a comparison's plan (`compare_plan.Plan`) with rungs and budgets. A rung is a size:
the number of parameters that every entry is matched to, and the shape that matching starts from. A
budget is a number of training tokens per parameter. Each pair of a rung and a budget is one
comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from holo_cli import registry
from holo_cli.bench.experiment.plan import (
    RESERVED,
    Entry,
    Plan,
    check_types,
    dotted,
    load_plan,
    shared_settings,
)
from holo_cli.errors import UsageError, nearest

LEAST_RUNGS = 3  # E, A and alpha are three unknowns
# what a ladder sets for each rung, or what has no meaning for it
NOT_USED = {"match", "target", "seconds"}


@dataclass(frozen=True)
class Rung:
    """A size. `settings` are dotted keys laid over the plan's base."""

    name: str
    parameters: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LadderPlan:
    """A whole ladder. `shared` holds what a comparison has too: entries, base, rates, seeds, ...

    `typed` are dotted settings from the command line, which overrule those of the rungs.
    """

    shared: Plan = field(default_factory=Plan)
    rungs: tuple[Rung, ...] = ()
    budgets: tuple[float, ...] = (10.0,)  # training tokens per parameter
    swept: tuple[str, ...] = ()  # rungs at which rates are swept; none: the smallest one
    ahead: float = 4.0  # how far beyond the largest compute the curves are compared
    resamples: int = 1000  # of the bootstrap
    series: int = 1  # how many runs may share a process
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
        """The swept rung that is nearest in size (by ratio; the smaller one of two as near)."""
        return min(
            self.swept_rungs, key=lambda r: (_apart(r.parameters, rung.parameters), r.parameters)
        )

    def comparison(self, rung: Rung, steps: int) -> Plan:
        """The comparison at a rung, of runs of `steps` steps."""
        plan = self.shared.changed(
            {"match": "parameters", "target": rung.parameters},
            {**rung.settings, "training.steps": steps},
        )
        return replace(plan, base={**plan.base, **self.typed})

    def check(self) -> LadderPlan:
        """The plan itself, or UsageError for what makes no sense."""
        if len(self.rungs) < LEAST_RUNGS:
            raise UsageError(
                f"A ladder needs at least {LEAST_RUNGS} rungs to fit a curve; this plan has "
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
            or not all(_is_number(b) and b > 0 for b in self.budgets),
            f"ahead {self.ahead}": self.ahead <= 1,
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


def plan_names() -> list[str]:
    """The ladder plans that come with holo."""
    folder = registry.configs_folder() / "bench" / "ladder"
    return sorted(path.stem for path in folder.glob("*.toml"))


def named_plan(name: str) -> LadderPlan:
    """A ladder plan that comes with holo."""
    if name not in plan_names():
        raise UsageError(
            f"There is no plan '{name}' for a ladder.", next_step=nearest(name, plan_names())
        )
    return read_plan(registry.configs_folder() / "bench" / "ladder" / f"{name}.toml")


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
