"""From an entry of a plan to the config of a run, and what makes two runs the same.

Also what must hold before anything is trained: all entries see the same tokens, and there is enough
text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.config.added import value_before
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.data.batches import TrainBatches
from holo_cli.data.dataset import PreparedData
from holo_cli.data.halves import halves
from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.plan import Entry, Plan

if TYPE_CHECKING:
    pass

# settings of where and how a run is made, which do not change its result
NOT_PART_OF_IDENTITY = {
    "data.path", "data.verify", "training.device", "training.save_every", "training.log_every",
    "training.tracker", "training.tracker_project",
}  # fmt: skip
# what an entry has more or less of at another size, or from another tokenizer
SIZES = {
    f"model.{key}"
    for key in (
        "width", "layers", "heads", "context", "mlp_ratio", "vocab_size",
        "end_token", "languages", "language_tokens",
    )
}  # fmt: skip
# the keys of training.* that decide which tokens a run reads
TOKENS_SEEN = (
    "steps", "batch_size", "grad_accum", "ramp_steps", "ramp_context", "target_loss", "time_limit",
)  # fmt: skip


def resolve_entry(plan: Plan, entry: Entry, data: Path) -> Resolved:
    """The entry's config at its own size: preset, base, then its settings.

    Raises UsageError naming the entry for keys that its model does not have and values that it
    cannot take.
    """
    changes = {
        **plan.base,
        **entry.settings,
        "data.path": data.resolve().as_posix(),
        "data.verify": False,  # the experiment verifies the data once
        "training.sample_tokens": 0,
    }
    if "training.warmup" not in changes and "training.steps" in changes:
        changes["training.warmup"] = min(50, changes["training.steps"] // 10)
    found = resolve(entry.model, entry.preset, entry.recipe)
    return found.replace(changes, source=f"entry {entry.name}")


def scaled(resolved: Resolved, rate: float, seed: int) -> Resolved:
    """With both peak learning rates times `rate`, and a seed."""
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
    """The same schedule in a share of the steps, evaluated only at its end."""
    steps = max(1, round(resolved.training.steps * share))
    warmup = min(resolved.training.warmup, steps)
    return resolved.replace(
        {"training.steps": steps, "training.warmup": warmup, "training.eval_every": steps},
        source="the sweep",
    )


def evaluated(resolved: Resolved, times: int) -> Resolved:
    """Evaluated `times` times, at equal distances."""
    every = max(1, -(-resolved.training.steps // times))
    return resolved.replace({"training.eval_every": every}, source="the plan")


# -- identity -------------------------------------------------------------------------------------


def identity(resolved: Resolved, fingerprint: str) -> dict[str, Any]:
    """Model, data and settings: what decides a run's result. Not: where and how it was run.

    Keys without effect are omitted, and keys at the value that a config without them stands for:
    so a key that a later version adds does not change the identity of older runs. The number
    format is omitted where it is "auto": an experiment computes in one format, see
    `Experiment.dtype`.
    """
    unread = {f"model.{key}" for key in resolved.model.without_effect()}
    return {
        "model": resolved.model_name,
        "data": fingerprint,
        "settings": {
            key: value
            for key, value in resolved.values().items()
            if key not in NOT_PART_OF_IDENTITY | unread
            and value != _value_if_missing(resolved, key)
            and (key, value) != ("training.dtype", "auto")
        },
    }


def identity_of_row(row: Mapping[str, Any], data: str) -> dict[str, Any] | None:
    """The identity of a row's run by the settings stored in it; `data` names the data. None for
    settings that this version cannot read."""
    stored = stored_settings(row)
    return None if stored is None else identity(stored, data)


def form_at_any_size(resolved: Resolved, plan: Plan, entry: Entry) -> dict[str, Any]:
    """A model and its settings, but for sizes and what the plan sets for all entries, unless the
    entry itself sets them: what the entry is at any size."""
    free = (SIZES | plan.base.keys()) - entry.settings.keys()
    settings = identity(resolved, "")["settings"]
    kept = {k: v for k, v in settings.items() if k.startswith("model.") and k not in free}
    return {"model": resolved.model_name, "settings": kept}


def stored_settings(row: Mapping[str, Any]) -> Resolved | None:
    """The config of a row's run; None for settings that this version cannot read."""
    try:
        return Resolved.from_dict({"model": row["model"], "config": row["config"]})
    except (KeyError, UsageError):
        return None


def agrees(row: Mapping[str, Any], resolved: Resolved) -> bool:
    """Whether a row's settings have the same meaning as these."""
    return identity_of_row(row, "") == identity(resolved, "")


def _value_if_missing(resolved: Resolved, key: str) -> Any:
    """What a dotted key means in a config without it, as JSON stores it."""
    section, _, leaf = key.partition(".")
    return value_before(type(getattr(resolved, section)), leaf)


# -- before a comparison --------------------------------------------------------------------------


def check_same_tokens(configs: dict[str, Resolved], *, timed: bool) -> None:
    """Raises UsageError where an entry would not see the same tokens in the same order as the first
    one, naming the entry and the key. With `timed` the numbers of steps may differ."""
    first = next(iter(configs))
    expected = _tokens_seen(configs[first], timed)
    for name, resolved in configs.items():
        for key, value in _tokens_seen(resolved, timed).items():
            if value != expected[key]:
                raise UsageError(
                    f"Entries {first} and {name} would not see the same tokens: {key} is "
                    f"{expected[key]} and {value}.",
                    next_step="Set it for all entries, in the plan's base or with --set, or "
                    "compare them in separate plans.",
                )


def _tokens_seen(resolved: Resolved, timed: bool) -> dict[str, object]:
    training, data = resolved.training.model_dump(), resolved.data.model_dump()
    keys = [key for key in TOKENS_SEEN if not (timed and key == "steps")]
    return (
        {"model.context": resolved.model.context}
        | {f"training.{key}": training[key] for key in keys}
        | {f"data.{key}": value for key, value in data.items() if key != "path"}
    )


def check_text(data: PreparedData, configs: dict[str, Resolved]) -> None:
    """Raises DataError for a set without validation text or with too little text to train on."""
    if not data.token_count("val"):
        raise DataError(
            f"{data.path} has no validation text, so nothing can be compared on it.",
            next_step="Prepare it with a larger --val-fraction.",
        )
    for resolved in configs.values():
        TrainBatches(data.split("train"), resolved.model.context, 0)  # raises if too short
        halves(data, resolved.model.context)  # likewise
