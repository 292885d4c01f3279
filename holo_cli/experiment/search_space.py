"""The search space of an entry, and the trials that Optuna's sampler proposes in it.

Tuned are the entry's learning rates, the training keys common to all models, and the keys for which
the model's config declares a range (`holo_cli/config/tunable.py`). A key that the plan or the entry
sets is what that entry tests: it is not tuned.

Trials are proposed in rounds of ROUND. A round is a function of the entry, its number and the
losses of the rounds before it: so the trials do not depend on how many run at a time, and a resumed
experiment finds them again from its rows. The sampler is TPE, Optuna's default (Bergstra et al.
2011, "Algorithms for Hyper-Parameter Optimization", NeurIPS; Akiba et al. 2019, arXiv 1907.10902).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holo_cli.config.resolve import Resolved
from holo_cli.config.tunable import Range, range_of
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RATE, ADAM_RATE = "rate", "adam_rate"  # factors: on both peak rates; on AdamW's beside Muon's
ROUND = 4  # trials proposed from the same results
STARTUP = 8  # results before the sampler stops sampling at random
BEYOND = 2.0  # factor by which rates may go below and above the plan's
ADAM_RANGE = Range(low=0.25, high=4.0, log=True)

Settings = dict[str, Any]
Space = dict[str, Range]


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial: its settings and its loss on the tune half; None where it failed."""

    settings: Settings
    loss: float | None


def require_optuna() -> None:
    """Raises UsageError where the extra `tune` is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError(
            "--tune needs Optuna, which is not installed.",
            next_step="Install it with: pip install 'holo-cli[tune]'",
        )


def space_of(resolved: Resolved, rates: Sequence[float], fixed: Collection[str]) -> Space:
    """What is tuned of an entry; `fixed` are dotted keys that keep their value.

    Raises UsageError for an empty declared range.
    """
    space = {RATE: Range(low=min(rates) / BEYOND, high=max(rates) * BEYOND, log=True)}
    if resolved.training.optimizer == "muon":
        space[ADAM_RATE] = ADAM_RANGE
    return space | {key: found for key, found in _declared(resolved) if key not in fixed}


def model_keys(space: Space) -> list[str]:
    """The keys of the model in a search space."""
    return [key for key in space if key.startswith("model.")]


def _declared(resolved: Resolved) -> Iterator[tuple[str, Range]]:
    unread = resolved.model.without_effect()
    for section, config in (("training", resolved.training), ("model", resolved.model)):
        values = config.model_dump()
        for name, field in type(config).model_fields.items():
            found = range_of(f"{section}.{name}", field, values)
            if found is not None and not (section == "model" and name in unread):
                yield f"{section}.{name}", found


def propose(
    space: Space, name: str, number: int, finished: Sequence[FinishedTrial]
) -> Iterator[Settings]:
    """Settings of round `number` of an entry, an endless stream: the caller skips those that cannot
    be built. The same arguments give the same settings."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    digest = hashlib.sha256(f"{name}/{number}".encode()).digest()
    sampler = optuna.samplers.TPESampler(
        seed=int.from_bytes(digest[:4], "big"), n_startup_trials=STARTUP
    )
    study = optuna.create_study(sampler=sampler)
    spread = {key: _distribution(found) for key, found in space.items()}
    for trial in finished:
        known = {
            key: value
            for key, value in trial.settings.items()
            if key in space and space[key].contains(value)
        }
        state = optuna.trial.TrialState
        study.add_trial(
            optuna.trial.create_trial(
                params=known,
                distributions={key: spread[key] for key in known},
                value=trial.loss,
                state=state.COMPLETE if trial.loss is not None else state.PRUNED,
            )
        )
    while True:
        yield {key: _rounded(value) for key, value in study.ask(spread).params.items()}


def _rounded(value: Any) -> Any:
    """Three significant digits, which a person can type."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _distribution(found: Range) -> BaseDistribution:
    from optuna import distributions

    if found.choices:
        return distributions.CategoricalDistribution(found.choices)
    if found.whole:
        return distributions.IntDistribution(int(found.low), int(found.high), log=found.log)
    return distributions.FloatDistribution(found.low, found.high, log=found.log)


def changes(settings: Mapping[str, Any], space: Space, section: str) -> dict[str, Any]:
    """The settings of a section, as keys of a config; without rates and shares of the steps."""
    return {
        key: value
        for key, value in settings.items()
        if key.startswith(f"{section}.") and not space[key].share
    }


def format_settings(settings: Mapping[str, Any]) -> str:
    """As text: "rate x2.1, adam_rate x0.7, eps 0.03"."""
    return ", ".join(
        f"{key} x{value:.3g}" if key in (RATE, ADAM_RATE) else f"{key.partition('.')[2]} {value}"
        for key, value in settings.items()
    )
