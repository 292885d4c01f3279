"""The trials of a comparison with `--tune`: which there are, which come next, and their results.

Every entry gets the same number of trials. The first ones are the plan's learning rates with all
other settings unchanged, so that "default" below is the result of a sweep of the rate alone; the
others are proposed (`search_space.py`). A trial runs the sweep's share of the steps with the
sweep's seed and is judged by its loss on the tune half of the validation text. A size is matched
again for each trial; settings that cannot be built or matched are infeasible, cost no training, and
are replaced by another proposal. Nothing is stored here: everything follows from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holo_cli.config.resolve import Resolved
from holo_cli.errors import UsageError
from holo_cli.experiment.entries import evaluated, identity, scaled, shortened
from holo_cli.experiment.plan import Entry
from holo_cli.experiment.result_log import Row, key_of, tune_loss
from holo_cli.experiment.runs import SWEEP_SEED, Run, diverged
from holo_cli.experiment.search_space import (
    ADAM_RATE,
    RATE,
    ROUND,
    FinishedTrial,
    Settings,
    Space,
    changes,
    format_settings,
    model_keys,
    propose,
    require_optuna,
    space_of,
)
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.experiment.experiment import Experiment

MAX_PROPOSALS = 60  # for a round, before its entry counts as exhausted
TRIAL_MEASUREMENTS = 1  # of a trial's speed, for match = "time"


@dataclass(frozen=True)
class Trial:
    """Settings to try. `shape` has the model's settings, matched in size; `infeasible` are the
    proposals that were skipped just before this one."""

    number: int  # from 1
    settings: Settings
    shape: Resolved
    infeasible: tuple[Settings, ...] = ()

    @property
    def rate(self) -> float:
        return float(self.settings[RATE])

    def to_dict(self) -> dict[str, Any]:
        """For the trial's row."""
        return {
            "trial": self.number,
            "settings": self.settings,
            "infeasible": list(self.infeasible),
        }


@dataclass(frozen=True)
class Tuned:
    """The results of an entry's trials. `settled` when no more are to come."""

    entry: str
    budget: int
    done: int
    settled: bool
    best: Trial | None
    loss: float | None  # of the best trial, nats per token on the tune half
    default: float | None  # of the best trial of the plan's rates alone
    infeasible: list[Settings] = field(default_factory=list)
    diverged: int = 0
    broken: tuple[int, ...] = ()  # trials that ended for a reason other than their settings
    own: tuple[str, ...] = ()  # tuned keys of the model

    @property
    def gain(self) -> float | None:
        """Loss of the default minus loss of the best trial, in nats per token."""
        if self.loss is None or self.default is None:
            return None
        return self.default - self.loss

    def to_dict(self) -> dict[str, Any]:
        return {
            "entry": self.entry,
            "budget": self.budget,
            "trials": self.done,
            "infeasible": len(self.infeasible),
            "infeasible_settings": self.infeasible,
            "diverged": self.diverged,
            "broken": len(self.broken),
            "model_keys": list(self.own),
            "best_trial": None if self.best is None else self.best.number,
            "found": None if self.best is None else self.best.settings,
            "tune_loss": self.loss,
            "default_tune_loss": self.default,
            "gain": self.gain,
        }


class Tuning:
    """The trials of every entry of an experiment whose plan asks for them."""

    def __init__(self, experiment: Experiment) -> None:
        """Raises UsageError without Optuna, and for an entry with an empty range."""
        require_optuna()
        self.experiment = experiment
        self.budget = experiment.plan.tune
        self.spaces: dict[str, Space] = {}
        self._trials: dict[str, list[Trial]] = {}
        self._exhausted: set[str] = set()
        self._runs: dict[tuple[str, int, int], Run] = {}
        for entry in experiment.plan.entries:
            # a warm-up in the plan's base is a default for its number of steps
            fixed = ({*experiment.plan.base} - {"training.warmup"}) | {*entry.settings}
            try:
                self.spaces[entry.name] = space_of(
                    experiment.configs[entry.name], self._rates(entry), fixed
                )
            except UsageError as error:
                raise UsageError(
                    f"Entry {entry.name}: {error.message}", next_step=error.next_step
                ) from error

    def _rates(self, entry: Entry) -> list[float]:
        return sorted(entry.rates or self.experiment.plan.rates)

    def notes(self) -> list[str]:
        """Which entries have no settings of the model to tune."""
        bare = [name for name, space in self.spaces.items() if not model_keys(space)]
        if not bare:
            return []
        has = "has" if len(bare) == 1 else "have"
        return [
            f"{', '.join(bare)} {has} no settings of the model to tune: tuned on learning rates, "
            "weight decay and warm-up alone."
        ]

    # -- trials -----------------------------------------------------------------------------------

    def trials(self, entry: Entry) -> list[Trial]:
        """The trials that can be named now; a round follows when all trials before it have
        ended."""
        known = self._trials.setdefault(entry.name, self._defaults(entry))
        while len(known) < self.budget and entry.name not in self._exhausted:
            finished = [self._finished(entry, trial) for trial in known]
            number, inside = divmod(len(known) - len(self._rates(entry)), ROUND)
            before = len(known) - inside
            if any(trial is None for trial in finished[:before]):
                break
            self._propose(entry, number, inside, [t for t in finished[:before] if t is not None])
        return known[: self.budget]

    def _defaults(self, entry: Entry) -> list[Trial]:
        shape = self.experiment.configs[entry.name]
        rates = enumerate(self._rates(entry)[: self.budget], start=1)
        return [Trial(number, {RATE: rate}, shape) for number, rate in rates]

    def _propose(
        self, entry: Entry, number: int, inside: int, finished: list[FinishedTrial]
    ) -> None:
        """Add the rest of a round, whose first `inside` trials are known."""
        known = self._trials[entry.name]
        found = 0
        skipped: list[Settings] = []
        proposals = propose(self.spaces[entry.name], entry.name, number, finished)
        for tries, settings in enumerate(proposals):
            if tries == MAX_PROPOSALS:
                self._exhausted.add(entry.name)
                return
            shape = self._shape(entry, settings)
            if shape is None:
                skipped.append(settings)
                continue
            found += 1
            if found > inside:
                known.append(Trial(len(known) + 1, settings, shape, tuple(skipped)))
            skipped = []
            if found == ROUND or len(known) == self.budget:
                return

    def _shape(self, entry: Entry, settings: Settings) -> Resolved | None:
        """The model with these settings, matched in size; None where it cannot be built or
        matched."""
        wanted = changes(settings, self.spaces[entry.name], "model")
        if not wanted:
            return self.experiment.configs[entry.name]
        try:
            return self.experiment.sized(entry, wanted)
        except UsageError:
            return None

    def _finished(self, entry: Entry, trial: Trial) -> FinishedTrial | None:
        """A trial's result; None before it has one. The sampler treats a trial that broke off like
        one that diverged."""
        loss = self._loss(entry, trial)
        if loss is None and not self._ended(entry, trial):
            return None
        return FinishedTrial(trial.settings, loss)

    def _loss(self, entry: Entry, trial: Trial) -> float | None:
        run = self.run(entry, trial)
        row = None if run is None else self.experiment.row(run)
        return tune_loss(row) if row is not None and row["status"] == "done" else None

    def _ended(self, entry: Entry, trial: Trial) -> bool:
        runs = self.runs(entry, trial)
        rows = [self.experiment.row(run) for run in runs]
        if any(row is not None and row["status"] != "done" for row in rows):
            return True
        return self.run(entry, trial) is not None and all(row is not None for row in rows)

    # -- runs -------------------------------------------------------------------------------------

    def runs(self, entry: Entry, trial: Trial) -> list[Run]:
        """The runs of a trial: for match = "time" a measurement of its speed, then its training."""
        throughput_runs = self.experiment.throughput_runs(entry, trial.shape, TRIAL_MEASUREMENTS)
        run = self.run(entry, trial)
        return [*throughput_runs, *([] if run is None else [run])]

    def run(self, entry: Entry, trial: Trial) -> Run | None:
        """A trial's training run; None before its number of steps is known."""
        steps = self.experiment.steps(entry, trial.shape, TRIAL_MEASUREMENTS)
        if steps is None:
            return None
        known = (entry.name, trial.number, steps)
        if known not in self._runs:
            whole = self._trained(entry, trial, steps)
            short = shortened(whole, self.experiment.plan.sweep_share)
            resolved = self._warmed(scaled(short, trial.rate, SWEEP_SEED), trial)
            key = key_of(identity(resolved, self.experiment.data.fingerprint))
            self._runs[known] = Run(
                entry.name,
                "tune",
                trial.rate,
                SWEEP_SEED,
                resolved,
                key,
                self.experiment.where,
                trial,
            )
        return self._runs[known]

    def final(self, entry: Entry, trial: Trial, steps: int, seed: int) -> Resolved:
        """The config of a reported run with a trial's settings."""
        whole = evaluated(self._trained(entry, trial, steps), self.experiment.plan.evaluations)
        return self._warmed(scaled(whole, trial.rate, seed), trial)

    def _trained(self, entry: Entry, trial: Trial, steps: int) -> Resolved:
        """A trial's model with its training settings and this number of steps."""
        resolved = self.experiment.with_steps(trial.shape, steps)
        wanted = changes(trial.settings, self.spaces[entry.name], "training")
        factor = trial.settings.get(ADAM_RATE)
        if factor is not None:
            wanted["training.adam_lr"] = resolved.training.adam_lr * factor
        return resolved.replace(wanted, source="tuned") if wanted else resolved

    def _warmed(self, resolved: Resolved, trial: Trial) -> Resolved:
        """With the warm-up as a share of this run's own steps, where it is tuned."""
        share = trial.settings.get("training.warmup")
        if share is None:
            return resolved
        steps = round(share * resolved.training.steps)
        return resolved.replace({"training.warmup": steps}, source="tuned")

    def forget(self) -> None:
        """Discard proposals that follow from rows which no longer count."""
        self._trials.clear()
        self._exhausted.clear()

    def failures(self, entry: Entry) -> list[Row]:
        """The rows of an entry's trials that failed."""
        rows = [
            self.experiment.row(run)
            for trial in self.trials(entry)
            for run in self.runs(entry, trial)
        ]
        return [row for row in rows if row is not None and row["status"] != "done"]

    # -- results ----------------------------------------------------------------------------------

    def unproposed(self, entry: Entry) -> int:
        """The number of trials that are still to be proposed."""
        if entry.name in self._exhausted:
            return 0
        return self.budget - len(self.trials(entry))

    def result(self, entry: Entry) -> Tuned:
        trials = self.trials(entry)
        losses = {t.number: self._loss(entry, t) for t in trials}
        ended = [t for t in trials if self._ended(entry, t)]
        failed = {
            t.number: row
            for t in ended
            for run in self.runs(entry, t)
            if (row := self.experiment.row(run)) is not None and row["status"] != "done"
        }
        broken = tuple(number for number, row in failed.items() if not diverged(row))
        good = [t for t in trials if losses[t.number] is not None]
        settled = len(ended) == len(trials) and not self.unproposed(entry)
        best = min(good, key=lambda t: losses[t.number] or 0.0) if good else None
        if not settled or broken:  # the best trial may be one that broke off
            best = None
        plain = [losses[t.number] for t in good if t.settings.keys() == {RATE}]
        return Tuned(
            entry.name,
            self.budget,
            len(ended),
            settled,
            best,
            None if best is None else losses[best.number],
            min((loss for loss in plain if loss is not None), default=None),
            [settings for trial in trials for settings in trial.infeasible],
            len(failed) - len(broken),
            broken,
            tuple(model_keys(self.spaces[entry.name])),
        )

    def sentences(self) -> list[str]:
        """Remarks on the trials for a reader of the result."""
        found = [
            f"Each entry had {counted(self.budget, 'trial')} over its learning rates, the "
            "training settings "
            "common to all and the model's own settings; the best settings were chosen by the tune "
            "half of the validation text with a seed that is not reported."
        ]
        results = [self.result(entry) for entry in self.experiment.plan.entries]
        short = [f"{r.entry} ({r.done} of {r.budget})" for r in results if r.done < r.budget]
        if short:
            found.append(
                f"Not all trials are finished, so the budgets are not equal: {', '.join(short)}."
            )
        if self._exhausted:
            names = ", ".join(sorted(self._exhausted))
            found.append(f"No further settings could be built or matched in size for {names}.")
        return [*found, *self.notes()]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows as text."""
        columns = ["model", "trials", "infeasible", "default, nats", "tuned, nats", "gain", "found"]
        rows = []
        for entry in self.experiment.plan.entries:
            r = self.result(entry)
            rows.append([
                r.entry, f"{r.done}/{r.budget}", str(len(r.infeasible)),
                "" if r.default is None else f"{r.default:.4f}",
                "" if r.loss is None else f"{r.loss:.4f}",
                "" if r.gain is None else f"{r.gain:.4f}",
                "" if r.best is None else format_settings(r.best.settings),
            ])  # fmt: skip
        return columns, rows
