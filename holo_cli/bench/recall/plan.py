"""The plan of `holo bench recall`: entries, tasks, and how hard the tasks are.

A plan is a TOML file (`configs/bench/recall/*.toml`, or your own) with entries as in the plan of a
comparison and one table for each task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from holo_cli import registry
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import UsageError, nearest
from holo_cli.experiment.plan import (
    MOST_RUNS,
    Entry,
    check_types,
    load_plan,
    plan_path,
    select_entries,
)
from holo_cli.tasks import TASKS, TaskCase
from holo_cli.tasks.needle import Needle
from holo_cli.tasks.spec import TaskSpec

# settings that the bench sets itself or has no use for, and what to do instead
RESERVED = {
    "model.context": "It follows from the tasks: train = [[LENGTH, ITEMS], ...].",
    "model.vocab_size": "Set `vocab` of the task, [task.NAME].",
    "training.seed": "Runs have the seeds 1, 2, ...; set the number with --seeds or `seeds`.",
    "training.compile": "Nothing is compiled in this bench; leave it out.",
    "training.time_limit": "Runs end by --steps, or early by the plan's `solved`; leave it out.",
    "training.target_loss": "Runs end by --steps, or early by the plan's `solved`; leave it out.",
}
NOT_USED = {
    "rates": "The plan's `rates` are for all entries; use another plan for other rates.",
    "match": "Set the size in [entry.NAME.set], or the plan's `widths`.",
    "vary": "Set the size in [entry.NAME.set], or the plan's `widths`.",
}


@dataclass(frozen=True)
class RecallPlan:
    """A whole recall bench. The field names are the keys of a plan file; `tasks` are tables."""

    entries: tuple[Entry, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    title: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()  # every entry at each of these widths; empty: at its own
    rates: tuple[float, ...] = (1.0,)  # factors on the learning rates; the best is reported
    seeds: int = 1
    sequences: int = 256  # test rows for each case
    solved: float = 0.0  # a run ends once its loss in nats stays below this; 0 disables

    def select(self, names: Sequence[str]) -> RecallPlan:
        """Only these entries; see `select_entries`."""
        return replace(self, entries=select_entries(self.entries, names))

    def select_tasks(self, names: Sequence[str]) -> RecallPlan:
        """Only these tasks. Raises UsageError for one that the plan does not set."""
        known = {spec.name: spec for spec in self.tasks}
        for name in names:
            if name not in known:
                raise UsageError(f"There is no task '{name}'.", next_step=nearest(name, known))
        return replace(self, tasks=tuple(known[name] for name in dict.fromkeys(names)))

    def with_entries(self, more: Sequence[Entry]) -> RecallPlan:
        entries = {e.name: e for e in self.entries} | {e.name: e for e in more}
        return replace(self, entries=tuple(entries.values()))

    def check(self) -> RecallPlan:
        """The plan itself, or UsageError for what makes no sense."""
        if not self.entries:
            raise UsageError(
                "No model to test.",
                next_step=f"Add --models, of: {', '.join(registry.model_names())}.",
            )
        if not self.tasks:
            raise UsageError("No task to test with.", next_step=f"Tasks: {', '.join(TASKS)}.")
        if self.seeds < 1 or self.sequences < 1 or not self.rates or min(self.rates) <= 0:
            raise UsageError("Seeds, sequences and rates of a recall bench must be above 0.")
        if self.seeds > MOST_RUNS:
            raise UsageError(f"Seeds of a recall bench must be at most {MOST_RUNS:,}.")
        self._check_settings("the plan", self.base)
        for entry in self.entries:
            self._check_settings(f"entry {entry.name}", entry.settings)
        for spec in self.tasks:
            for case in spec.cases:
                spec.task.check(case)
        return self

    def _check_settings(self, where: str, settings: Mapping[str, Any]) -> None:
        """Raises UsageError for a setting that would have no effect."""
        reserved = RESERVED | (
            {"model.width": "Leave it out, or the plan's `widths`."} if self.widths else {}
        )
        for key in settings:
            if key.startswith("data."):
                raise UsageError(
                    f"A recall bench reads no text: {key} of {where} cannot be set.",
                    next_step="Leave it out; the models read the plan's tasks.",
                )
            if key in reserved:
                raise UsageError(
                    f"A recall bench does not take {key} from {where}.", next_step=reserved[key]
                )

    def at_widths(self) -> tuple[Entry, ...]:
        """The entries at each width."""
        if not self.widths:
            return self.entries
        return tuple(
            replace(e, name=_at(e, width), settings={**e.settings, "model.width": width})
            for e in self.entries
            for width in self.widths
        )

    def families(self) -> dict[str, tuple[str, int | None]]:
        """By the name of an entry at a width: the plan's entry, and the width."""
        if not self.widths:
            return {e.name: (e.name, None) for e in self.entries}
        return {_at(e, width): (e.name, width) for e in self.entries for width in self.widths}


def _at(entry: Entry, width: int) -> str:
    return f"{entry.name} {width}"


def named_plan(name: str) -> RecallPlan:
    """A plan that comes with holo."""
    return read_plan(plan_path("recall", name))


def read_plan(path: Path) -> RecallPlan:
    """Parse a plan file. Raises UsageError naming the file and the key that is wrong."""
    known = {f.name for f in fields(RecallPlan)} - {"entries", "tasks"}
    values, entries, tables = load_plan(path, known, "task")
    check_types(values, RecallPlan, path)
    for entry in entries:
        for key, instead in NOT_USED.items():
            if getattr(entry, key) is not None:
                raise UsageError(
                    f"{path}: {key} of [entry.{entry.name}] is for a comparison and has no effect "
                    "in a recall bench.",
                    next_step=instead,
                )
    tasks = tuple(_read_spec(path, name, given) for name, given in tables.items())
    return RecallPlan(**values, entries=entries, tasks=tasks)


def _read_spec(path: Path, name: str, given: Any) -> TaskSpec:
    where = f"{path}: [task.{name}]"
    if name not in TASKS:
        raise UsageError(f"{where}: there is no such task.", next_step=nearest(name, TASKS))
    if not isinstance(given, Mapping) or not {"vocab", "train"} <= set(given):
        raise UsageError(f"{where} needs vocab, and train = [[LENGTH, ITEMS], ...].")
    own = {"depth"} if issubclass(TASKS[name], Needle) else set()
    unknown = set(given) - {"vocab", "train", "test"} - own
    if unknown:
        raise UsageError(f"{where}: unknown key '{unknown.pop()}'.")
    try:
        train, test = (tuple(TaskCase(*c) for c in given.get(key, [])) for key in ("train", "test"))
        spec = TaskSpec(name, given["vocab"], train, test, given.get("depth"))
        assert spec.train
        numbers = (spec.vocab_size, *(n for case in spec.cases for n in case))
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    except (TypeError, AssertionError):
        whole = False
    if not whole:
        raise UsageError(
            f"{where}: vocab is a whole number; train and test are lists of [LENGTH, ITEMS], "
            "whole numbers."
        )
    if not isinstance(spec.depth, int | float | None) or isinstance(spec.depth, bool):
        raise UsageError(f"{where}: depth is a number from 0 to 1.")
    return spec


def resolve_run(plan: RecallPlan, entry: Entry, spec: TaskSpec, rate: float, seed: int) -> Resolved:
    """The config of one run. Raises UsageError naming the entry."""
    found = resolve(entry.model, entry.preset, entry.recipe)
    steps = plan.base.get("training.steps", found.training.steps)
    changes = {
        "training.warmup": min(found.training.warmup, steps // 10),
        **plan.base,
        **entry.settings,
        "model.context": spec.context,
        "model.vocab_size": spec.vocab_size,
        "training.seed": seed,
    }
    found = found.replace(changes, source=f"entry {entry.name}")
    training = found.training
    rates = {"training.lr": training.lr * rate, "training.adam_lr": training.adam_lr * rate}
    return found.replace(rates, source=f"rate x{rate:g}")
