"""What `holo bench controls` trains: a baseline, its placebo, and planted changes.

The placebo is the baseline with other initial weights and the same batches in the same order, so
any difference between the two is chance. Planted changes are entries known to help or to hurt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from holo_cli.config.resolve import Resolved
from holo_cli.errors import UsageError, nearest
from holo_cli.experiment.entries import scaled
from holo_cli.experiment.experiment import Experiment, Run
from holo_cli.experiment.plan import (
    MOST_RUNS,
    Entry,
    Plan,
    check_types,
    load_plan,
    plan_path,
)
from holo_cli.experiment.result_log import ResultLog, rows_path, test_loss
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.stored_text import ExperimentText, open_text

KIND = "controls"
PLACEBO = "placebo"
INIT_SEED_OFFSET = 1_000_003  # so that the placebo's initial weights have seeds of their own
NOT_USED = {"match", "target", "seconds", "seeds", "first_seed", "extend", "sweep_share",
                   "vary"}  # fmt: skip


@dataclass(frozen=True)
class ControlsPlan:
    """`shared` is the plan of a comparison; its first entry is the baseline.

    The placebo has `campaigns` x `campaign_seeds` pairs of runs, a planted change
    `planted_seeds`.
    """

    shared: Plan = field(default_factory=Plan)
    campaigns: int = 20
    campaign_seeds: int = 3
    planted_seeds: int = 12
    found_with: tuple[int, ...] = (2, 3, 5)  # numbers of seeds for detecting a planted change
    helps: tuple[str, ...] = ()  # entries known to be better than the baseline
    hurts: tuple[str, ...] = ()  # entries known to be worse
    series: int = 1  # number of runs that may share a process

    @property
    def pairs(self) -> int:
        """Pairs of a run and its placebo."""
        return self.campaigns * self.campaign_seeds

    def changed(
        self, shared: Mapping[str, Any], own: Mapping[str, Any], sets: Iterable[str] = ()
    ) -> ControlsPlan:
        """With fields of the comparison and of the controls replaced; `sets` are "key=value"."""
        return replace(self, shared=self.shared.changed(shared, {}, sets), **own)

    def check(self) -> ControlsPlan:
        """The plan itself, or UsageError for what makes no sense."""
        planted, names = (*self.helps, *self.hurts), [e.name for e in self.shared.entries]
        for name in planted:
            if name not in names[1:]:
                raise UsageError(
                    f"The plan names '{name}' as a planted change, but has no such entry after "
                    "the baseline.",
                    next_step=nearest(name, names),
                )
        loose = [name for name in names[1:] if name not in planted]
        if loose or PLACEBO in names or len(set(planted)) < len(planted):
            raise UsageError(
                f"Entries after the baseline must each be in helps or in hurts, not "
                f"{', '.join(loose) or 'in both'}; the name {PLACEBO} is reserved."
            )
        counts = (self.campaigns, self.series, self.campaign_seeds - 1, *(
            n - 1 for n in (*self.found_with, self.planted_seeds)
        ))  # fmt: skip
        if min(counts) < 1 or not self.found_with:
            raise UsageError(
                "Controls need at least one campaign, and two seeds in each comparison.",
                next_step="Look at campaigns, campaign_seeds, planted_seeds and found_with.",
            )
        if max(self.pairs, self.series) > MOST_RUNS:
            raise UsageError(
                f"Controls cannot have more than {MOST_RUNS:,} pairs of runs (campaigns x seeds)."
            )
        if max(self.found_with) > self.planted_seeds or self.planted_seeds > self.pairs:
            raise UsageError(
                f"found_with ({max(self.found_with)}) cannot exceed planted_seeds "
                f"({self.planted_seeds}), nor planted_seeds the pairs of the placebo "
                f"({self.pairs} = campaigns x campaign_seeds)."
            )
        for rates in (self.shared.rates, *(entry.rates for entry in self.shared.entries)):
            if rates is not None and len(rates) != 1:
                raise UsageError(
                    "Controls take learning rates as they are, without a sweep.",
                    next_step="Give one rate, as in rates = [1.0].",
                )
        return self


class Controls(Experiment):
    """The runs of the controls, and the paired differences in their rows."""

    def __init__(self, plan: ControlsPlan, data: ExperimentText, rows: ResultLog) -> None:
        self.controls = plan.check()
        base, *planted = plan.shared.entries
        entries = (base, replace(base, name=PLACEBO), *planted)
        super().__init__(replace(plan.shared, entries=entries, match="none"), data, rows)
        self.series = plan.series

    def final_runs(self, entry: Entry) -> list[Run]:
        """One run for each seed: a planted change has fewer seeds than the placebo."""
        of_placebo = entry.name in (self.base, PLACEBO)
        count = self.controls.pairs if of_placebo else self.controls.planted_seeds
        rate = (entry.rates or self.plan.rates)[0]
        seeds = range(self.plan.first_seed, self.plan.first_seed + count)
        return [self._run(entry, "final", rate, seed) for seed in seeds]

    def seeded(self, entry: Entry, resolved: Resolved, rate: float, seed: int) -> Resolved:
        """The placebo's initial weights come from a seed that no other run has."""
        found = scaled(resolved, rate, seed)
        if entry.name != PLACEBO:
            return found
        return found.replace({"training.init_seed": INIT_SEED_OFFSET + seed}, source="the placebo")

    def differences(self, name: str) -> dict[int, float]:
        """By seed: the loss of an entry minus the baseline's, for finished pairs."""
        found = {}
        for entry in (name, self.base):
            rows = [self.row(run) for run in self.final_runs(self.entries[entry])]
            done = [row for row in rows if row is not None and row["status"] == "done"]
            found[entry] = {row["seed"]: test_loss(row) for row in done}
        base = found[self.base]
        return {seed: loss - base[seed] for seed, loss in found[name].items() if seed in base}


def open_controls(plan: ControlsPlan, options: RunOptions) -> Controls:
    """The controls with the rows beside their page."""
    plan.check()
    rows = ResultLog(rows_path(options.page), KIND)
    data = open_text(plan.shared.data, rows, report_only=options.report_only)
    controls = Controls(plan, data, rows)
    controls.forget(failed=options.retry_failed)
    return controls


# -- plan files -----------------------------------------------------------------------------------


def named_plan(name: str) -> ControlsPlan:
    """A plan that comes with holo."""
    return read_plan(plan_path("controls", name))


def read_plan(path: Path) -> ControlsPlan:
    """Parse a plan file. Raises UsageError naming the file and the key that is wrong."""
    of_plan = {f.name for f in fields(Plan)} - {"entries"} - NOT_USED
    own = {f.name for f in fields(ControlsPlan)} - {"shared"}
    values, entries, _ = load_plan(path, of_plan | own)
    check_types(values, Plan, path)
    check_types(values, ControlsPlan, path)
    shared = Plan(**{k: v for k, v in values.items() if k in of_plan}, entries=entries)
    return ControlsPlan(shared=shared, **{k: v for k, v in values.items() if k in own})
