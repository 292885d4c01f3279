"""Which runs a comparison is made of, and which of them come next.

An experiment keeps no state of its own: what comes next follows from the plan and from the rows
that are there, so stopping and going on is nothing special. Each entry goes through a sweep of its
learning rate, which moves on past an edge that is best, and then through its seeds at the best
rate. The sweep has a seed of its own: the rate is not chosen on the runs that are reported.
Entries take turns, so that a machine that gets slower or busier does so for all of them.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from holo_cli.bench.compare.checks import check_equal, check_text
from holo_cli.bench.experiment.identity import (
    evaluated,
    identity,
    identity_of_row,
    resolve_entry,
    scaled,
    shortened,
)
from holo_cli.bench.experiment.losses import tune_loss
from holo_cli.bench.experiment.param_matching import count, describe, fit
from holo_cli.bench.experiment.plan import Entry, Plan
from holo_cli.bench.experiment.result_log import ResultLog, Row, key_of
from holo_cli.bench.experiment.runs import SWEEP_SEED, Run, Sweep, diverged
from holo_cli.bench.experiment.tuning import Trial, Tuning
from holo_cli.config.resolve import Resolved
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import UsageError
from holo_cli.models.base import Description

THROUGHPUT_RUNS = 3  # how often the speed of an entry is measured, for match = "time"


class Experiment:
    """A plan on a prepared set, with the rows it has so far."""

    def __init__(
        self,
        plan: Plan,
        data: PreparedData,
        rows: ResultLog,
        labels: Mapping[str, Any] | None = None,
        where: str = "",
    ) -> None:
        """Resolves and sizes every entry. Raises UsageError and DataError for what cannot be.

        Where an experiment has several experiments, `labels` go into each row of this one and
        `where` into the names of its runs.
        """
        self.labels, self.where = dict(labels or {}), where
        self.plan, self.data, self.rows = plan.check(), data, rows
        self.vocab = data.tokenizer.vocab_size
        self.entries = {entry.name: entry for entry in plan.entries}
        self.configs: dict[str, Resolved] = {}
        self.described: dict[str, Description] = {}
        self.target = 0
        self._known: dict[tuple[str, str, float, int, int], Run] = {}
        self._throughput_runs: dict[tuple[str, int, int], Run] = {}
        self._sizes: dict[str, Description] = {}
        self._stored: dict[str, Row] = {}  # rows by what their settings mean today
        self.foreign: Counter[str] = Counter()  # rows of other prepared sets, by the sets' names
        self._index()
        self.forgotten: list[
            str
        ] = []  # keys of rows that count no more, for `run` to put on record
        if plan.match in ("parameters", "active"):
            first = self._with_vocabulary(plan.entries[0])
            self.target = plan.target or count(first, self.vocab, plan.match)
        for entry in plan.entries:
            self.configs[entry.name] = resolved = self.sized(entry)
            self.described[entry.name] = describe(resolved, self.vocab)
        check_equal(self.configs, timed=plan.match == "time")
        self.dtype = number_format(self.configs[plan.entries[0].name], self._rows_here())
        check_text(data, self.configs)
        self.base = plan.entries[0].name
        self.tuning = Tuning(self) if plan.tune else None

    def sized(self, entry: Entry, changes: Mapping[str, Any] | None = None) -> Resolved:
        """An entry's config with some keys changed, then matched in size."""
        plan, resolved = self.plan, self._with_vocabulary(entry)
        if changes:
            resolved = resolved.replace(changes, source="tuned")
        if plan.match not in ("parameters", "active") or entry.match == "none":
            return resolved
        try:
            return fit(
                resolved, self.vocab, self.target, plan.match,
                vary=entry.vary or plan.vary, tolerance=plan.tolerance,
            )  # fmt: skip
        except UsageError as error:
            raise UsageError(
                f"Entry {entry.name}: {error.message}", next_step=error.next_step
            ) from error

    def _with_vocabulary(self, entry: Entry) -> Resolved:
        resolved = resolve_entry(self.plan, entry, self.data.path)
        return resolved.replace({"model.vocab_size": self.vocab}, source="the tokenizer")

    # -- what there is to do ----------------------------------------------------------------------

    def wanted(self) -> list[Run]:
        """Every run that can be named now, in the order in which they should be done: finished
        ones too. More come to be known as sweeps settle."""
        columns = [list(self._of(entry)) for entry in self.plan.entries]
        return [run for turn in zip_longest(*columns) for run in turn if run is not None]

    def todo(self) -> list[Run]:
        """Those of `wanted` without a row, equal ones once."""
        found = {run.key: run for run in reversed(self.wanted()) if self.row(run) is None}
        return list(reversed(found.values()))

    def left(self) -> int:
        """How many runs are still to do, as far as can be foreseen."""
        unsettled = sum(not self.sweep(e).settled for e in self.plan.entries)
        return len(self.todo()) + unsettled * self.plan.seeds + sum(self._unasked().values())

    def _unasked(self) -> dict[str, int]:
        """Trials that are still to be proposed, by entry."""
        tuning = self.tuning
        return {e.name: tuning.unasked(e) for e in self.plan.entries} if tuning else {}

    def pending(self) -> Iterator[tuple[str, int | None, int]]:
        """Entry, steps (None: not known yet) and evaluations of each run that is to be done, as
        far as can be foreseen."""
        for run in self.todo():
            training = run.resolved.training
            if run.role == "pace":
                yield run.entry, 0, 0
            else:
                yield run.entry, training.steps, -(-training.steps // training.eval_every)
        for entry in self.plan.entries:
            for _ in range(self._unasked().get(entry.name, 0)):
                steps = self.steps(entry)
                yield entry.name, steps and round(steps * self.plan.sweep_share), 1
            if not self.sweep(entry).settled:
                for _ in range(self.plan.seeds):
                    yield entry.name, self.steps(entry), self.plan.evaluations

    def is_matched(self, entry: str) -> bool | None:
        """Whether an entry has what the plan holds equal; None where the plan holds nothing."""
        plan, described = self.plan, self.final_size(entry)
        if plan.match == "none":
            return None
        if plan.match == "time":
            return self.is_timed(entry)
        size = described.parameters if plan.match == "parameters" else described.active_parameters
        return abs(size - self.target) <= plan.tolerance * self.target

    def is_timed(self, entry: str) -> bool:
        """Whether an entry's runs last a given time."""
        return self._timed(self.entries[entry])

    def final_config(self, entry: str) -> Resolved:
        """The entry's config, as tuned where that is known; at its rates x1."""
        best = self.tuned(entry)
        return self.configs[entry] if best is None else best.shape

    def final_size(self, entry: str) -> Description:
        return self.size(self.final_config(entry)) if self.tuned(entry) else self.described[entry]

    def size(self, resolved: Resolved) -> Description:
        """What a config costs, counted once for each model."""
        key = key_of({"model": resolved.model_name, **resolved.model.model_dump(mode="json")})
        if key not in self._sizes:
            self._sizes[key] = describe(resolved, self.vocab)
        return self._sizes[key]

    def tuned(self, entry: str) -> Trial | None:
        """The best trial of an entry; None without tuning or before it is known."""
        return self.tuning.result(self.entries[entry]).best if self.tuning else None

    def _of(self, entry: Entry) -> Iterator[Run]:
        if self.tuning is not None:
            for trial in self.tuning.trials(entry):
                yield from self.tuning.runs(entry, trial)
            best = self.tuned(entry.name)
            if best is not None:
                yield from self.throughput_runs(entry, best.shape)
            yield from self.final_runs(entry)
            return
        yield from self.throughput_runs(entry)
        if self.steps(entry) is None:
            return
        sweep = self.sweep(entry)
        if len(sweep.rates) > 1:
            yield from (self.sweep_run(entry, rate) for rate in sweep.rates)
        yield from self.final_runs(entry)

    def final_runs(self, entry: Entry) -> list[Run]:
        """The runs that are reported, one for each seed; none before the sweep is settled."""
        sweep = self.sweep(entry)
        seeds = range(self.plan.first_seed, self.plan.first_seed + self.plan.seeds)
        if (best := self.tuned(entry.name)) is not None:
            steps = self.steps(entry, best.shape)
            return [] if steps is None else [self._tuned(entry, best, steps, s) for s in seeds]
        if sweep.best is None or self.steps(entry) is None:
            return []
        return [self._run(entry, "final", sweep.best, seed) for seed in seeds]

    def _tuned(self, entry: Entry, best: Trial, steps: int, seed: int) -> Run:
        assert self.tuning is not None
        known = (entry.name, f"final, trial {best.number}", best.rate, seed, steps)
        if known not in self._known:
            resolved = self.tuning.final(entry, best, steps, seed)
            key = key_of(identity(resolved, self.data.fingerprint))
            self._known[known] = Run(
                entry.name, "final", best.rate, seed, resolved, key, self.where, best
            )
        return self._known[known]

    def sweep_run(self, entry: Entry, rate: float) -> Run:
        return self._run(entry, "sweep", rate, SWEEP_SEED)

    def sweep(self, entry: Entry) -> Sweep:
        """How far an entry's sweep has come, by the rows."""
        if self.tuning is not None:
            result = self.tuning.result(entry)
            best = None if result.best is None else result.best.rate
            return Sweep(() if best is None else (best,), {}, best, settled=result.settled)
        rates = sorted(entry.rates or self.plan.rates)
        if len(rates) == 1:
            return Sweep(tuple(rates), {}, rates[0], settled=True)
        if self.steps(entry) is None:
            return Sweep(tuple(rates), {}, None, settled=False)
        for _ in range(self.plan.extend + 1):
            losses = self._losses(entry, rates)
            broken = tuple(rate for rate in rates if self._broke(entry, rate))
            if len(losses) + len(broken) < len(rates):
                return Sweep(tuple(rates), losses, None, settled=False, broken=broken)
            if broken:  # the best one may be among them
                return Sweep(tuple(rates), losses, None, settled=True, broken=broken)
            good = {rate: loss for rate, loss in losses.items() if loss is not None}
            best = min(good, key=lambda rate: good[rate]) if good else None
            if best not in (rates[0], rates[-1]) or len(rates) >= self._most(entry):
                break
            if best == rates[-1]:
                rates.append(rates[-1] * rates[-1] / rates[-2])
            else:
                rates.insert(0, rates[0] * rates[0] / rates[1])
        return Sweep(tuple(rates), losses, best, settled=True)

    def _most(self, entry: Entry) -> int:
        return len(entry.rates or self.plan.rates) + self.plan.extend

    def _losses(self, entry: Entry, rates: list[float]) -> dict[float, float | None]:
        rows = {rate: self.row(self.sweep_run(entry, rate)) for rate in rates}
        return {
            rate: tune_loss(row) if row["status"] == "done" else None
            for rate, row in rows.items()
            if row is not None and (row["status"] == "done" or diverged(row))
        }

    def _broke(self, entry: Entry, rate: float) -> bool:
        row = self.row(self.sweep_run(entry, rate))
        return row is not None and row["status"] != "done" and not diverged(row)

    # -- matching by time -------------------------------------------------------------------------

    def throughput_runs(
        self, entry: Entry, resolved: Resolved | None = None, times: int = THROUGHPUT_RUNS
    ) -> list[Run]:
        """Measurements of speed, of the entry's config or another one of it; none unless runs are
        as long as a given time."""
        if not self._timed(entry):
            return []
        resolved = resolved or self.configs[entry.name]
        return [self._pace(entry, resolved, number) for number in range(times)]

    def _pace(self, entry: Entry, resolved: Resolved, number: int) -> Run:
        known = (entry.name, id(resolved), number)  # the run keeps the config, so its id, in use
        if known not in self._throughput_runs:
            settings = identity(resolved, self.data.fingerprint)
            key = key_of(settings | {"seconds": self.plan.seconds, "pace": number})
            self._throughput_runs[known] = Run(entry.name, "pace", 1.0, number, resolved, key)
        return self._throughput_runs[known]

    def steps(
        self, entry: Entry, resolved: Resolved | None = None, times: int = THROUGHPUT_RUNS
    ) -> int | None:
        """Steps of a whole run; None while the speed that decides them is not known."""
        if not self._timed(entry):
            return self.configs[entry.name].training.steps
        rows = [self.row(run) for run in self.throughput_runs(entry, resolved, times)]
        steps = [row["steps"] for row in rows if row is not None and row["status"] == "done"]
        return round(statistics.median(steps)) if len(steps) == times else None

    def _timed(self, entry: Entry) -> bool:
        return self.plan.match == "time" and entry.match != "none"

    def _config(self, entry: Entry) -> Resolved:
        """The entry's config with the steps of a whole run."""
        resolved, steps = self.configs[entry.name], self.steps(entry)
        return resolved if steps is None else self.with_steps(resolved, steps)

    def with_steps(self, resolved: Resolved, steps: int) -> Resolved:
        """With so many steps, and a warm-up that is not too long for them."""
        if steps == resolved.training.steps:
            return resolved
        warmup = min(resolved.training.warmup, steps // 10)
        changes = {"training.steps": steps, "training.warmup": warmup}
        return resolved.replace(changes, source="the time given")

    def _run(self, entry: Entry, role: str, rate: float, seed: int) -> Run:
        """Made once: what is to do is asked after every run, and checking configs takes time."""
        known = (entry.name, role, rate, seed, self.steps(entry) or 0)
        if known not in self._known:
            resolved = self._config(entry)
            if role == "sweep":
                resolved = shortened(resolved, self.plan.sweep_share)
            else:
                resolved = evaluated(resolved, self.plan.evaluations)
            resolved = self.seeded(entry, resolved, rate, seed)
            key = key_of(identity(resolved, self.data.fingerprint))
            self._known[known] = Run(entry.name, role, rate, seed, resolved, key, self.where)
        return self._known[known]

    def seeded(self, entry: Entry, resolved: Resolved, rate: float, seed: int) -> Resolved:
        """The config of a run from its entry's: with its learning rates and its seed."""
        return scaled(resolved, rate, seed)

    def experiment_of(self, run: Run) -> Experiment:
        """The experiment itself: all runs are its own."""
        return self

    # -- rows -------------------------------------------------------------------------------------

    def forget(self, *, failed: bool, entries: tuple[str, ...] = ()) -> None:
        """Do again what failed, or every run that these entries now have. Unknown entries fail by
        name."""
        self.forget_runs(self.runs_of(entries), failed=failed)

    def runs_of(self, entries: Sequence[str]) -> list[Run]:
        """Every run that these entries now have. Raises UsageError for unknown ones."""
        for name in entries:
            if name not in self.entries:
                raise UsageError(f"There is no entry '{name}' to do again.")
        return [run for name in entries for run in self._of(self.entries[name])]

    def forget_runs(self, runs: Sequence[Run], *, failed: bool) -> None:
        """Act as if these runs, and with `failed` those that failed, had no rows."""
        keys = [run.key for run in runs]
        found = [self._stored.pop(key) for key in keys if key in self._stored]
        self.forgotten = [row["key"] for row in found]
        broken = [key for key, row in self._stored.items() if failed and row["status"] != "done"]
        found += [self._stored.pop(key) for key in broken]
        for row in found:
            self.rows.forget(row["key"])
        if found and self.tuning is not None:
            self.tuning.forget()

    def row(self, run: Run) -> Row | None:
        """The row of a run: one made with settings that mean the same, on the same data."""
        return self._stored.get(run.key)

    def add(self, row: Row) -> None:
        """The row of a run that has just ended, under the run's key."""
        self.rows.add(row)
        self._stored[row["key"]] = row

    def _index(self) -> None:
        """Rows by the keys that runs of their settings have now.

        The key that a row was written with may be of an earlier form, or from before a default
        changed; what a row's stored settings mean does not change.
        """
        for row in self.rows:
            stored = row.get("data", {})
            if not self.data.matches_fingerprint(stored.get("fingerprint", "")):
                name = stored.get("name", "unknown")
                self.foreign[f"{name} ({stored.get('fingerprint', '')[:8]})"] += 1
            elif row["role"] == "pace":
                self._stored[row["key"]] = row
            elif (settings := identity_of_row(row, self.data.fingerprint)) is not None:
                self._stored[key_of(settings)] = row

    def _rows_here(self) -> list[Row]:
        """Rows of this plan's entries on this data."""
        return [row for row in self._stored.values() if row["entry"] in self.entries]


def number_format(resolved: Resolved, rows: Sequence[Row]) -> str:
    """The format in which all runs of an experiment compute: "float32" or "bfloat16".

    As asked for; else that of the rows there are, so that an experiment which is resumed on another
    machine stays comparable with itself; else what this machine is fast at.
    """
    from holo_cli.training.precision import pick_device, pick_dtype

    asked = resolved.training.dtype
    known = Counter(row["dtype"] for row in rows if row.get("dtype"))
    if asked == "auto" and known:
        return known.most_common(1)[0][0]
    found = pick_dtype(asked, pick_device(resolved.training.device))
    return str(found).removeprefix("torch.")
