"""`holo train --dry-run`: every setting with where it came from, the model's size, the memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holo_cli.cli import train_data
from holo_cli.cli.output import Output, count, size

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved

ASSUMED_VOCABULARY = 8192  # of the tokenizer that `holo prepare` trains by default


def show(resolved: Resolved, out: Output) -> None:
    """Print what training would do. Trains nothing, writes nothing, prepares nothing."""
    resolved = train_data.choose(resolved, out, prepare=False)
    vocab_size = vocabulary(resolved, out)
    from holo_cli.training.memory_estimate import estimate

    resolved = resolved.replace({"model.vocab_size": vocab_size}, source="the tokenizer")
    estimated = estimate(resolved, vocab_size)
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
        }
        | ({"stages": growth} if growth else {})
    )
    chosen = (("name", resolved.model_name), ("preset", resolved.preset))
    head = [*chosen, ("recipe", resolved.recipe)]
    rows = [(key, value, resolved.provenance[key]) for key, value in [*head, *values.items()]]
    out.table(("key", "value", "from"), rows)
    out.text("")
    out.facts((label(name), readable(name, value)) for name, value in estimated.items())
    if growth:
        out.text("")
        shown = [
            (i, row["step"], row["layers"], count(row["parameters"]), size(row["total_bytes"]))
            for i, row in enumerate(growth, start=1)
        ]
        out.table(("stage", "from step", "blocks", "parameters", "memory"), shown)
    out.end("Nothing was trained (--dry-run).", "the same command without --dry-run")


def stages(resolved: Resolved, vocab_size: int) -> list[dict[str, int]]:
    """The stages of a model that grows: first step, depth, parameters, memory; [] for others."""
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


def vocabulary(resolved: Resolved, out: Output) -> int:
    """The vocabulary size of the data's tokenizer, or a usual one where there are no data yet."""
    if not resolved.data.path:
        out.note(f"Vocabulary not known yet: counting with {ASSUMED_VOCABULARY:,}.")
        return ASSUMED_VOCABULARY
    from holo_cli.data.dataset import PreparedData

    return int(PreparedData.open(resolved.data.path, verify=False).tokenizer.vocab_size)


def label(name: str) -> str:
    """`weights_bytes` -> "memory: weights"."""
    what = name.removesuffix("_bytes").replace("_", " ")
    return f"memory: {what}" if name.endswith("_bytes") else what


def readable(name: str, value: Any) -> str:
    """A figure of the estimate for a person: bytes and counts with their units."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return size(value) if "bytes" in name else count(value)
