"""`holo models NAME --plan`: what a run takes on each of several GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holo_cli.cli.output import Output, count, duration, size
from holo_cli.errors import UsageError
from holo_cli.imports import no_collections
from holo_cli.names import quoted
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.training.device_plan import Layout

PREFERRED = "25m"
COLUMNS = (
    "layout", "weights", "gradients", "optimizer", "whole blocks", "a row", "rows that fit",
    "sent per step",
)  # fmt: skip


def show_plan(
    name: str | None,
    vocab_size: int,
    settings: dict[str, Any],
    gpus: int,
    memory_gb: float,
    tokens_per_second: float | None,
    out: Output,
) -> None:
    """Print the plan of a model. `settings`: preset, recipe and config keys. Raises UsageError."""
    if name is None:
        raise UsageError(
            "--plan needs a model.",
            next_step="For example: holo models vanilla --plan --gpus 8 --memory 80",
        )
    with no_collections():
        from holo_cli.config.resolve import resolve
        from holo_cli.registry import preset_names
        from holo_cli.training.device_plan import plan_devices

    known = preset_names(name)
    default = PREFERRED if PREFERRED in known else next(iter(known), None)
    preset = settings["preset"] or default
    flags = {"model.vocab_size": vocab_size}
    resolved = resolve(name, preset, settings["recipe"], sets=settings["sets"], flags=flags, env={})
    plan = plan_devices(resolved, vocab_size, gpus, memory_gb * 1e9, tokens_per_second)
    out.document({"model": name, "preset": preset, "plan": plan.to_dict()})
    out.text(
        f"{name}{f', {preset}' if preset else ''}: {count(plan.parameters)} parameters, "
        f"{count(plan.active_parameters)} active, context {plan.context:,}; "
        f"{counted(gpus, 'GPU')} of {memory_gb:g} GB\n"
    )
    out.table(COLUMNS, [_row(one) for one in plan.layouts])
    best = plan.best()
    if best is None:
        out.warn("No batch fits, not even of one row: more GPUs or memory, or a smaller context.")
        return
    out.note(
        f"A step of {counted(plan.step_rows, 'row')}, with {best.flags}: --batch-size "
        f"{best.batch_size} --grad-accum {best.grad_accum}."
    )
    out.note(f"The run: {counted(plan.steps, 'step')}, {count(plan.tokens)} tokens.")
    if plan.seconds is not None and plan.steps_per_second is not None:
        out.note(
            f"At the given speed, without communication: {plan.steps_per_second:.3g} steps/s, "
            f"{duration(plan.seconds)}."
        )
    out.end("", _command(name, preset, best, gpus, settings["sets"]))


def _row(one: Layout) -> tuple[str, ...]:
    sizes = (one.weights, one.gradients, one.optimizer, one.gathered, one.row)
    return (one.flags, *map(size, sizes), f"{one.rows:,}", size(one.traffic))


def _command(name: str, preset: str | None, best: Layout, gpus: int, sets: Any) -> str:
    flags = "" if best.flags == "plain" else f" {best.flags}"
    chosen = f" --preset {preset}" if preset else ""
    more = "".join(f" --set {quoted(one)}" for one in sets)
    train = (
        f"train --model {quoted(name)}{chosen} --batch-size {best.batch_size} --grad-accum "
        f"{best.grad_accum}{flags}{more}"
    )
    return (
        f"holo {train}" if gpus == 1 else f"torchrun --nproc-per-node {gpus} -m -- holo_cli {train}"
    )
