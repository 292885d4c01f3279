"""Which runs a comparison consists of, and which are still to be done.

An experiment keeps no state of its own: the next runs follow from the plan and from the stored
rows, so an interrupted experiment resumes without further effort. Each entry goes through a sweep
of its learning rate, which is extended where the lowest or highest rate is best, and then through
its seeds at the best rate. The sweep has a seed of its own: the rate is not chosen on reported
runs. Entries take turns, so that a machine that becomes slower or busier does so for all of them.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from holo_cli.config.resolve import Resolved
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import UsageError
from holo_cli.experiment.entries import (
    check_same_tokens,
    check_text,
    evaluated,
    identity,
    identity_of_row,
    resolve_entry,
    scaled,
    shortened,
)
from holo_cli.experiment.param_matching import count_parameters, describe, match_size
from holo_cli.experiment.plan import Entry, Plan
from holo_cli.experiment.result_log import ResultLog, Row, key_of, tune_loss
from holo_cli.experiment.runs import (
    SWEEP_SEED,
    THROUGHPUT,
    Run,
    Sweep,
    diverged,
    outcome,
    training_job,
    training_row,
)
from holo_cli.experiment.stored_text import ExperimentText
from holo_cli.experiment.tuning import Trial, Tuning
from holo_cli.experiment.worker_pool import Event, Job
from holo_cli.models.base import Description

SPEED_MEASUREMENTS = 3  # how often the speed of an entry is measured, for match = "time"


class Experiment:
    """A plan on a prepared set, with the rows it has so far. A report needs no more of the set than
    its rows say."""

    def __init__(
        self,
        plan: Plan,
        data: ExperimentText,
        rows: ResultLog,
        labels: Mapping[str, Any] | None = None,
        where: str = "",
    ) -> None:
        """Resolves and sizes every entry. Raises UsageError and DataError for what is not possible.

        Where several experiments share a file, as in a ladder, `labels` go into each row of this
        one and `where` into the labels of its runs.
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
        self._stored: dict[str, Row] = {}  # rows by the keys that their settings have now
        self.other_data: Counter[str] = Counter()  # rows of other prepared sets, by the sets' names
        self._index()
        self.forgotten: list[str] = []  # keys of rows that no longer count
        self.series = 1
        if plan.match in ("parameters", "active"):
            first = self._with_vocabulary(plan.entries[0])
            self.target = plan.target or count_parameters(first, self.vocab, plan.match)
        for entry in plan.entries:
            self.configs[entry.name] = resolved = self.sized(entry)
            self.described[entry.name] = describe(resolved, self.vocab)
        check_same_tokens(self.configs, timed=plan.match == "time")
        self.dtype, self.dtype_here = number_formats(
            self.configs[plan.entries[0].name], self._rows_here()
        )
        if isinstance(data, PreparedData):
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
            return match_size(
                resolved, self.vocab, self.target, plan.match,
                vary=entry.vary or plan.vary, tolerance=plan.tolerance,
            )  # fmt: skip
        except UsageError as error:
            raise UsageError(
                f"Entry {entry.name}: {error.message}", next_step=error.next_step
            ) from error

    def with_format(self, resolved: Resolved) -> Resolved:
        """A config with the number format of all runs, unless it names one itself: processes that
        chose for themselves might differ."""
        if resolved.training.dtype != "auto":
            return resolved
        return resolved.replace({"training.dtype": self.dtype}, source="the experiment")

    def _with_vocabulary(self, entry: Entry) -> Resolved:
        resolved = resolve_entry(self.plan, entry, self.data.path)
        return resolved.replace({"model.vocab_size": self.vocab}, source="the tokenizer")

    # -- what is to be done (`runner.Runnable`) ---------------------------------------------------

    def wanted(self) -> list[Run]:
        """Every run that can be named now, finished or not, in the order in which to do them. More
        are known once sweeps have settled."""
        columns = [list(self._of(entry)) for entry in self.plan.entries]
        return [run for turn in zip_longest(*columns) for run in turn if run is not None]

    def todo(self) -> list[Run]:
        """Runs of `wanted` without a row, equal ones once."""
        found = {run.key: run for run in reversed(self.wanted()) if self.row(run) is None}
        return list(reversed(found.values()))

    def left(self) -> int:
        """How many runs are still to do, as far as can be foreseen."""
        unsettled = sum(not self.sweep(e).settled for e in self.plan.entries)
        return len(self.todo()) + unsettled * self.plan.seeds + sum(self._unproposed().values())

    def _unproposed(self) -> dict[str, int]:
        """Trials that are still to be proposed, by entry."""
        tuning = self.tuning
        return {e.name: tuning.unproposed(e) for e in self.plan.entries} if tuning else {}

    def pending(self) -> Iterator[tuple[str, int | None, int]]:
        """Entry, steps (None: not known yet) and evaluations of each run still to do, as far as can
        be foreseen."""
        for run in self.todo():
            training = run.resolved.training
            if run.role == THROUGHPUT:
                yield run.entry, 0, 0
            else:
                yield run.entry, training.steps, -(-training.steps // training.eval_every)
        for entry in self.plan.entries:
            for _ in range(self._unproposed().get(entry.name, 0)):
                steps = self.steps(entry)
                yield entry.name, steps and round(steps * self.plan.sweep_share), 1
            if not self.sweep(entry).settled:
                for _ in range(self.plan.seeds):
                    yield entry.name, self.steps(entry), self.plan.evaluations

    def is_matched(self, entry: str) -> bool | None:
        """Whether an entry meets what the plan matches; None where it matches nothing."""
        plan, described = self.plan, self.final_size(entry)
        if plan.match == "none":
            return None
        if plan.match == "time":
            return self.is_timed(entry)
        size = described.parameters if plan.match == "parameters" else described.active_parameters
        return abs(size - self.target) <= plan.tolerance * self.target

    def is_timed(self, entry: str) -> bool:
        """Whether an entry's runs last for a given time."""
        return self._timed(self.entries[entry])

    def final_config(self, entry: str) -> Resolved:
        """The entry's config, tuned where that is known, with its learning rates x1."""
        best = self.tuned(entry)
        return self.configs[entry] if best is None else best.shape

    def final_size(self, entry: str) -> Description:
        return self.size(self.final_config(entry)) if self.tuned(entry) else self.described[entry]

    def size(self, resolved: Resolved) -> Description:
        """Parameters, FLOPs and state of a config, counted once for each model."""
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
        """The state of an entry's sweep, by the rows."""
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
            broken = tuple(rate for rate in rates if self._broke_off(entry, rate))
            if len(losses) + len(broken) < len(rates):
                return Sweep(tuple(rates), losses, None, settled=False, broken=broken)
            if broken:  # the best rate may be one of these
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

    def _broke_off(self, entry: Entry, rate: float) -> bool:
        row = self.row(self.sweep_run(entry, rate))
        return row is not None and row["status"] != "done" and not diverged(row)

    # -- matching by time -------------------------------------------------------------------------

    def throughput_runs(
        self, entry: Entry, resolved: Resolved | None = None, times: int = SPEED_MEASUREMENTS
    ) -> list[Run]:
        """Measurements of the speed of an entry, with its own config or another one; none unless
        its runs last for a given time."""
        if not self._timed(entry):
            return []
        resolved = resolved or self.configs[entry.name]
        return [self._throughput_run(entry, resolved, number) for number in range(times)]

    def _throughput_run(self, entry: Entry, resolved: Resolved, number: int) -> Run:
        # the run keeps a reference to the config, so no other object gets its id
        known = (entry.name, id(resolved), number)
        if known not in self._throughput_runs:
            settings = identity(resolved, self.data.fingerprint)
            key = key_of(settings | {"seconds": self.plan.seconds, "pace": number})
            self._throughput_runs[known] = Run(entry.name, THROUGHPUT, 1.0, number, resolved, key)
        return self._throughput_runs[known]

    def steps(
        self, entry: Entry, resolved: Resolved | None = None, times: int = SPEED_MEASUREMENTS
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
        """With this number of steps, and a warm-up of a tenth of them at most."""
        if steps == resolved.training.steps:
            return resolved
        warmup = min(resolved.training.warmup, steps // 10)
        changes = {"training.steps": steps, "training.warmup": warmup}
        return resolved.replace(changes, source="the time given")

    def _run(self, entry: Entry, role: str, rate: float, seed: int) -> Run:
        """Cached: `wanted` is called after every run, and checking configs takes time."""
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
        """The config of a run: its entry's with a rate and a seed."""
        return scaled(resolved, rate, seed)

    def job(self, run: Run) -> Job:
        return training_job(self, run)

    def store(
        self, run: Run, event: Event, machine: dict[str, Any], wall_seconds: float | None
    ) -> str:
        """Store the row of a finished run; returns run and result in one line."""
        row = training_row(self, run, event, machine)
        if wall_seconds is not None:
            row["wall_seconds"] = wall_seconds
        self.add(row)
        return outcome(run, row)

    def add(self, row: Row) -> None:
        """Store a row under its key."""
        self.rows.add(row)
        self._stored[row["key"]] = row

    # -- rows -------------------------------------------------------------------------------------

    def forget(self, *, failed: bool, entries: tuple[str, ...] = ()) -> None:
        """Run failed runs again, and every run that these entries have now. Raises UsageError for
        unknown entries."""
        self.forget_runs(self.runs_of(entries), failed=failed)

    def runs_of(self, entries: Sequence[str]) -> list[Run]:
        """Every run that these entries have now. Raises UsageError for unknown entries."""
        for name in entries:
            if name not in self.entries:
                raise UsageError(f"There is no entry '{name}' to run again.")
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
        """The row of a run: one whose settings have the same meaning, on the same data."""
        return self._stored.get(run.key)

    def finished_otherwise(self, entry: str) -> int:
        """How many rows of reported runs name an entry; where it has none of its own, they have
        other settings or seeds than the plan."""
        mine = {"entry": entry, "role": "final", "status": "done", **self.labels}
        return sum(
            all(row.get(key) == value for key, value in mine.items())
            for row in self._stored.values()
        )

    def _index(self) -> None:
        """Index rows by the keys that runs with their settings have now.

        A row's own key may be of an earlier form, or from before a default changed; the meaning of
        its stored settings does not change.
        """
        for row in self.rows:
            stored = row.get("data", {})
            if not self.data.matches_fingerprint(stored.get("fingerprint", "")):
                name = stored.get("name", "unknown")
                self.other_data[f"{name} ({stored.get('fingerprint', '')[:8]})"] += 1
            elif row["role"] == THROUGHPUT:
                self._stored[row["key"]] = row
            elif (settings := identity_of_row(row, self.data.fingerprint)) is not None:
                self._stored[key_of(settings)] = row

    def _rows_here(self) -> list[Row]:
        return [row for row in self._stored.values() if row["entry"] in self.entries]


def number_formats(resolved: Resolved, rows: Sequence[Row]) -> tuple[str, str]:
    """The format in which all runs of an experiment compute, "float32" or "bfloat16", and the one
    that is fast on this machine.

    The first is the plan's; else that of the rows there are, so that an experiment which is resumed
    on another machine stays comparable with itself; else the second.
    """
    from holo_cli.training.precision import pick_device, pick_dtype

    asked = resolved.training.dtype
    here = str(pick_dtype(asked, pick_device(resolved.training.device))).removeprefix("torch.")
    known = Counter(row["dtype"] for row in rows if row.get("dtype"))
    return (known.most_common(1)[0][0] if asked == "auto" and known else here), here
