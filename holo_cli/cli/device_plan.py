"""`holo models NAME --plan`: what a run takes on each of several GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holo_cli.cli.output import Output, count, duration, size
from holo_cli.errors import UsageError
from holo_cli.imports import no_collections
from holo_cli.names import quoted
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.training.device_plan import DevicePlan, Layout
    from holo_cli.training.published_gpus import AssumedSpeed

PREFERRED = "25m"
MEMORY_GB = 24.0
COLUMNS = (
    "layout", "weights", "gradients", "optimizer", "whole blocks", "a row", "rows that fit",
    "sent per step",
)  # fmt: skip


@dataclass(frozen=True)
class DeviceOptions:
    """What was said about a GPU, None where nothing was."""

    gpu: str | None
    memory: float | None  # GB
    tflops: float | None
    link: float | None  # GB/s
    utilization: float | None
    tokens_per_second: float | None

    def memory_gb(self) -> float:
        """The given memory, that of the GPU named, or the default."""
        from holo_cli.training.published_gpus import published_gpu

        if self.memory is not None:
            return self.memory
        return MEMORY_GB if self.gpu is None else published_gpu(self.gpu).memory

    def speed(self) -> AssumedSpeed:
        """What was given, and for what was not, the figures of the GPU named."""
        from holo_cli.training.published_gpus import UTILIZATION, AssumedSpeed, published_gpu

        tflops, link = self.tflops, self.link
        if self.gpu is not None:
            published = published_gpu(self.gpu)
            tflops = published.tflops if tflops is None else tflops
            link = published.link if link is None else link
        share = UTILIZATION if self.utilization is None else self.utilization
        return AssumedSpeed(
            self.tokens_per_second,
            None if tflops is None else tflops * 1e12,
            share,
            None if link is None else link * 1e9,
        )


def show_plan(
    name: str | None,
    vocab_size: int,
    settings: dict[str, Any],
    gpus: int,
    device: DeviceOptions,
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
    memory_gb, speed = device.memory_gb(), device.speed()
    plan = plan_devices(resolved, vocab_size, gpus, memory_gb * 1e9, speed)
    out.document({"model": name, "preset": preset, "plan": plan.to_dict()})
    out.text(
        f"{name}{f', {preset}' if preset else ''}: {count(plan.parameters)} parameters, "
        f"{count(plan.active_parameters)} active, context {plan.context:,}; "
        f"{counted(gpus, 'GPU')} of {memory_gb:g} GB\n"
    )
    timed = any(one.most_tokens_per_second is not None for one in plan.layouts)
    columns = (*COLUMNS, "tokens/s") if timed else COLUMNS
    out.table(columns, [_row(one, timed) for one in plan.layouts])
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
    if timed:
        _note_time(plan, best, speed, out)
    out.end("", _command(name, preset, best, gpus, settings["sets"]))


def _row(one: Layout, timed: bool) -> tuple[str, ...]:
    sizes = (one.weights, one.gradients, one.optimizer, one.gathered, one.row)
    row = (one.flags, *map(size, sizes), f"{one.rows:,}", size(one.traffic))
    return (*row, _speed(one)) if timed else row


def _speed(one: Layout) -> str:
    """The bounds of a layout's tokens per second."""
    most, least = one.most_tokens_per_second, one.least_tokens_per_second
    if most is None:
        return ""
    if least is None:
        return f"at most {count(most)}"
    return count(most) if count(least) == count(most) else f"{count(least)} to {count(most)}"


def _note_time(plan: DevicePlan, best: Layout, speed: AssumedSpeed, out: Output) -> None:
    """From what speeds are computed, and the time of the run in the recommended layout."""
    rate, send = (speed.flops or 0) / 1e12, (speed.link or 0) / 1e9
    share, measured = f"{speed.utilization:.0%}", speed.tokens_per_second
    sends = plan.gpus > 1 and speed.link is not None
    if measured is not None and sends:
        out.note(
            f"Speeds are computed from {measured:g} tokens/s on one GPU, sending {send:g} GB/s."
        )
    elif measured is None and sends:
        out.note(
            f"Speeds are computed, not measured: {share} of {rate:g} Tflop/s, sending "
            f"{send:g} GB/s."
        )
    elif measured is None:
        out.note(f"Speeds are computed, not measured: {share} of {rate:g} Tflop/s.")
    most, least = best.most_tokens_per_second, best.least_tokens_per_second
    if most is None or (measured is not None and least is None):
        return
    shortest = duration(plan.tokens / most)
    if least is None:
        out.note(f"The run would take at least {shortest}.")
    elif shortest == (longest := duration(plan.tokens / least)):
        out.note(f"The run would take {shortest}.")
    else:
        out.note(
            f"The run would take {shortest} with all communication hidden behind computing, "
            f"{longest} with none hidden."
        )


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
