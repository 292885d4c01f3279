"""From an entry of a plan to the config of a run, and what makes two runs the same one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.bench.experiment.plan import Entry, Plan
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

# settings that say where and how a run is made, not what comes out
ELSEWHERE = {
    "data.path", "data.verify", "training.device", "training.save_every", "training.log_every",
}  # fmt: skip


def resolve_entry(plan: Plan, entry: Entry, data: Path) -> Resolved:
    """The entry's config at its own size: preset, base, then its settings.

    Raises UsageError naming the entry for what its model does not know or cannot take.
    """
    changes = {
        **plan.base,
        **entry.settings,
        "data.path": data.resolve().as_posix(),
        "data.verify": False,  # once, by the experiment, is enough
        "training.sample_tokens": 0,
    }
    if "training.warmup" not in changes and "training.steps" in changes:
        changes["training.warmup"] = min(50, changes["training.steps"] // 10)
    found = resolve(entry.model, entry.preset, entry.recipe)
    return found.replace(changes, source=f"entry {entry.name}")


def scaled(resolved: Resolved, rate: float, seed: int) -> Resolved:
    """With both peak rates times `rate`, and a seed."""
    training = resolved.training
    return resolved.replace(
        {
            "training.lr": training.lr * rate,
            "training.adam_lr": training.adam_lr * rate,
            "training.seed": seed,
        },
        source=f"rate x{rate:g}",
    )


def shortened(resolved: Resolved, share: float) -> Resolved:
    """The same schedule in a share of the steps, evaluated at its end only."""
    steps = max(1, round(resolved.training.steps * share))
    warmup = min(resolved.training.warmup, steps)
    return resolved.replace(
        {"training.steps": steps, "training.warmup": warmup, "training.eval_every": steps},
        source="the sweep",
    )


def evaluated(resolved: Resolved, times: int) -> Resolved:
    """Evaluated `times` times, evenly."""
    every = max(1, -(-resolved.training.steps // times))
    return resolved.replace({"training.eval_every": every}, source="the plan")


def identity(resolved: Resolved, fingerprint: str) -> dict[str, Any]:
    """What makes a run the run it is: model, data and settings, without where and how it ran.

    Left out are keys without effect, and those at the value that a config without them stands for:
    so a key which a later version adds does not make every older run another one. The number format
    is left out where it was not asked for: an experiment computes in one format, see
    `Experiment.dtype`.
    """
    unread = {f"model.{key}" for key in resolved.model.without_effect()}
    return {
        "model": resolved.model_name,
        "data": fingerprint,
        "settings": {
            key: value
            for key, value in resolved.values().items()
            if key not in ELSEWHERE | unread
            and value != _stands_for(resolved, key)
            and (key, value) != ("training.dtype", "auto")
        },
    }


def identity_of_row(row: Mapping[str, Any], data: str) -> dict[str, Any] | None:
    """The identity of the run that a row tells of, by the settings stored in it; `data` names the
    data. None for settings that this version cannot read."""
    try:
        return identity(Resolved.from_dict({"model": row["model"], "config": row["config"]}), data)
    except (KeyError, UsageError):
        return None


def agrees(row: Mapping[str, Any], resolved: Resolved) -> bool:
    """Whether a row was made with settings that mean the same as these."""
    return identity_of_row(row, "") == identity(resolved, "")


def _stands_for(resolved: Resolved, key: str) -> Any:
    """What a dotted key means in a config without it, as JSON has it."""
    section, _, leaf = key.partition(".")
    if section == "model":
        return type(resolved.model).before(leaf)
    return default_of(getattr(resolved, section), leaf)


def default_of(config: BaseModel, name: str) -> Any:
    """A field's default, as JSON has it."""
    default = type(config).model_fields[name].get_default(call_default_factory=True)
    return list(default) if isinstance(default, tuple) else default
