"""What must hold before a comparison trains anything: the same tokens for all, and enough text."""

from __future__ import annotations

from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import TrainBatches
from holo_cli.data.dataset import PreparedData
from holo_cli.data.halves import halves
from holo_cli.errors import DataError, UsageError

READING = (
    "steps",
    "batch_size",
    "grad_accum",
    "ramp_steps",
    "ramp_context",
    "target_loss",
    "time_limit",
)  # what of training.* decides which tokens a run reads


def check_equal(configs: dict[str, Resolved], *, timed: bool) -> None:
    """Every entry must see the same tokens in the same order. Raises UsageError naming the entry
    and the key in which it differs from the first one; steps may where `timed` sets them."""
    first = next(iter(configs))
    expected = _tokens_seen(configs[first], timed)
    for name, resolved in configs.items():
        for key, value in _tokens_seen(resolved, timed).items():
            if value != expected[key]:
                raise UsageError(
                    f"Entries {first} and {name} would not see the same tokens: {key} is "
                    f"{expected[key]} and {value}.",
                    next_step="Set it for all, in the plan's base or with --set, or compare them "
                    "in plans of their own.",
                )


def _tokens_seen(resolved: Resolved, timed: bool) -> dict[str, object]:
    """The settings that decide which tokens a run reads and in which order."""
    training, data = resolved.training.model_dump(), resolved.data.model_dump()
    found: dict[str, object] = {"model.context": resolved.model.context}
    found |= {f"training.{key}": training[key] for key in READING if not (timed and key == "steps")}
    return found | {f"data.{key}": value for key, value in data.items() if key != "path"}


def check_text(data: PreparedData, configs: dict[str, Resolved]) -> None:
    """Both parts must hold something, and the training part at least a window."""
    if not data.token_count("val"):
        raise DataError(
            f"{data.path} has no validation text, so nothing can be compared on it.",
            next_step="Prepare it with a larger --val-fraction.",
        )
    for resolved in configs.values():
        TrainBatches(data.split("train"), resolved.model.context, 0)  # raises if too short
        halves(data, resolved.model.context)  # likewise
