"""`holo train --dry-run`: every setting with its source, the model's size, memory and time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holo_cli.cli import schedule, train_data
from holo_cli.cli.output import Output, count, duration, size
from holo_cli.translation import translate

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved

ASSUMED_VOCABULARY = 8192  # vocabulary size that `holo prepare` trains by default


def show(resolved: Resolved, out: Output, force: bool = False) -> None:
    """Prints the config and the estimates without training, writing or preparing anything.

    Raises UsageError, unless `force`, for a run that training would refuse as too large.
    """
    resolved = train_data.choose(resolved, out, prepare=False)
    vocab_size, val_tokens = vocabulary(resolved, out)
    from holo_cli.training.capacity import check_measured
    from holo_cli.training.memory_estimate import estimate
    from holo_cli.training.precision import pick_device

    resolved, seconds = schedule.fitted(resolved, out, sizes=(vocab_size, val_tokens), force=force)
    resolved = resolved.replace({"model.vocab_size": vocab_size}, source="the tokenizer")
    estimated = estimate(resolved, vocab_size, force=force)
    growth = stages(resolved, vocab_size)
    values = resolved.values()
    out.document(
        {
            "model": resolved.model_name,
            "preset": resolved.preset,
            "recipe": resolved.recipe,
            "config": {
                key: {"value": value, "from": resolved.provenance[key]}
                for key, value in values.items()
            },
            "estimate": estimated,
            "expected_seconds": seconds,
        }
        | ({"stages": growth} if growth else {})
    )
    chosen = (("name", resolved.model_name), ("preset", resolved.preset))
    head = [*chosen, ("recipe", resolved.recipe)]
    rows = [
        (key, value, translate(resolved.provenance[key])) for key, value in [*head, *values.items()]
    ]
    out.table(("key", "value", "from"), rows, literal=True)
    out.text("")
    facts = [(label(name), readable(name, value)) for name, value in estimated.items()]
    if seconds is not None:
        facts.append(("time to train", duration(seconds)))
    out.facts(facts)
    if growth:
        out.text("")
        shown = [
            (i, row["step"], row["layers"], count(row["parameters"]), size(row["total_bytes"]))
            for i, row in enumerate(growth, start=1)
        ]
        out.table(("stage", "from step", "blocks", "parameters", "memory"), shown)
    largest = max(estimated["total_bytes"], *(row["total_bytes"] for row in growth), 0)
    check_measured(largest, pick_device(resolved.training.device), force=force)
    out.end("This was a dry run: nothing was trained.", "")


def stages(resolved: Resolved, vocab_size: int) -> list[dict[str, int]]:
    """The stages of a growing model: first step, depth, parameters, memory; [] for other models."""
    from holo_cli.training.growth import first_step
    from holo_cli.training.memory_estimate import estimate

    rows = []
    for stage in resolved.model.stages():
        at_stage = replace(resolved, model=resolved.model.at_depth(stage.layers))
        estimated = estimate(at_stage, vocab_size)
        sizes = {key: estimated[key] for key in ("parameters", "total_bytes")}
        step = first_step(stage, resolved.training.steps)
        rows.append({"step": step, "layers": stage.layers} | sizes)
    return rows


def vocabulary(resolved: Resolved, out: Output) -> tuple[int, int]:
    """The vocabulary size of the data's tokenizer and the validation tokens; if nothing is prepared
    yet, the default size and no tokens."""
    if not (resolved.data.path or resolved.data.sets):
        out.note(f"No prepared set yet: assuming a vocabulary of {ASSUMED_VOCABULARY:,} tokens.")
        return ASSUMED_VOCABULARY, 0
    from holo_cli.data.combined import open_data

    data = open_data(resolved.data, verify=False)
    return data.tokenizer.vocab_size, data.token_count("val")


def label(name: str) -> str:
    """`weights_bytes` -> "memory: weights"."""
    what = name.removesuffix("_bytes").replace("_", " ")
    return f"memory: {what}" if name.endswith("_bytes") else what


def readable(name: str, value: Any) -> str:
    """A value of the estimate with its unit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return size(value) if "bytes" in name else count(value)
