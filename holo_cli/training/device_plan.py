"""What a run takes on each of several GPUs, computed before any of them is rented.

Weights, gradients, optimizer state and traffic are counted. The activations of a row are measured
on this machine, as for `holo train --dry-run`, or looked up. Speed is computed only from what is
given: a rate of products, or the tokens per second that were measured on one GPU, and the speed of
the links. Then a step takes, with c seconds of computing and s of sending,

    max(c, s)    if all communication is hidden behind computing: the most tokens per second
    c + s        if none is: the least

Latency, the optimizer and waiting for one another are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.config.resolve import Resolved
from holo_cli.errors import UsageError
from holo_cli.models.base import LanguageModel
from holo_cli.training.memory_estimate import loss_bytes, weight_parts
from holo_cli.training.published_gpus import AssumedSpeed
from holo_cli.training.row_memory import row_bytes

USABLE = 0.9  # of a device's memory: the rest is for the driver, libraries and fragments
MAX_ROWS = 1 << 16
MAX_GPUS = 1 << 20
RECOMPUTING = 4 / 3  # of the work of a step: the forward pass twice
GATHERED = 2  # blocks that are whole at a time under --shard: the current one and the next


@dataclass(frozen=True)
class Layout:
    """One way to place a run on the GPUs; all sizes in bytes on one of them."""

    shard: bool
    grad_checkpoint: bool
    weights: int
    gradients: int
    optimizer: int
    gathered: int  # whole blocks that are held for a moment, with one block's gradients
    row: int  # activations of one row
    loss: int  # tables of the loss over a chunk of tokens
    rows: int  # the largest batch that fits; 0: none does
    batch_size: int  # of `--batch-size`: at most `rows`, and the rows of a step come out as asked
    grad_accum: int
    traffic: int  # sent in a step
    compute_seconds: float | None = None  # of a step
    send_seconds: float | None = None
    most_tokens_per_second: float | None = None  # of all GPUs, with communication hidden
    least_tokens_per_second: float | None = None  # with none hidden

    @property
    def flags(self) -> str:
        names = (("--shard", self.shard), ("--grad-checkpoint", self.grad_checkpoint))
        return " ".join(name for name, on in names if on) or "plain"

    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.optimizer + self.gathered


@dataclass(frozen=True)
class DevicePlan:
    """A run on `gpus` devices with `memory` bytes each."""

    gpus: int
    memory: int
    parameters: int
    active_parameters: int
    context: int
    step_rows: int
    steps: int
    tokens: int  # of the whole run
    layouts: tuple[Layout, ...]
    steps_per_second: float | None = None  # at most: without communication
    seconds: float | None = None  # at least

    def best(self) -> Layout | None:
        """The first layout in which a batch fits: those without sharding send least, and
        recomputing activations costs a third more work."""
        return next((one for one in self.layouts if one.batch_size), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        return asdict(self) | {"best": None if (best := self.best()) is None else best.flags}


def plan_devices(
    resolved: Resolved,
    vocab_size: int,
    gpus: int,
    memory: float,
    speed: AssumedSpeed = AssumedSpeed(),
) -> DevicePlan:
    """Plan a run in bfloat16 on `gpus` devices of `memory` bytes, as fast as `speed` says.

    Raises UsageError for numbers that no run has.
    """
    if not 1 <= gpus <= MAX_GPUS:
        raise UsageError(
            f"--gpus must be 1 to {MAX_GPUS:,}, not {gpus}.", next_step="For example: --gpus 8"
        )
    if not memory > 0:
        raise UsageError(
            "--memory must be above 0, in GB of one GPU.", next_step="For example: --memory 80"
        )
    speed.check()
    config = resolved.model.model_copy(update={"vocab_size": vocab_size})
    training = resolved.training
    step_rows = training.batch_size * training.grad_accum
    if step_rows % gpus:
        raise UsageError(
            f"A step has {step_rows} rows, which {gpus} GPUs cannot share equally.",
            next_step="Change --gpus, or --set training.batch_size=N.",
        )
    full = shapes_only(resolved.model_name, config)
    described = full.describe()
    layouts: list[Layout] = []
    whole_row = 0  # without recomputing
    for checkpointed in (False, True):
        changed = resolved.replace(
            {"training.grad_checkpoint": checkpointed, "training.dtype": "bfloat16"}, source="plan"
        )
        row = row_bytes(changed, config, full)
        if checkpointed:  # and those of one block, while it is computed again
            row += whole_row // config.layers
        else:
            whole_row = row
        for shard in (False, True) if gpus > 1 else (False,):
            share, usable = step_rows // gpus, USABLE * memory
            one = _layout(changed, full, row, gpus, usable, share, shard)
            step = step_rows * config.context
            layouts.append(_timed(one, speed, gpus, step, described.train_flops_per_token))
    tokens = step_rows * config.context * training.steps
    measured = speed.tokens_per_second
    rate = None if measured is None else measured * gpus
    return DevicePlan(
        gpus=gpus,
        memory=round(memory),
        parameters=described.parameters,
        active_parameters=described.active_parameters,
        context=config.context,
        step_rows=step_rows,
        steps=training.steps,
        tokens=tokens,
        layouts=tuple(sorted(layouts, key=lambda one: (one.grad_checkpoint, one.shard))),
        steps_per_second=None if rate is None else rate / (step_rows * config.context),
        seconds=None if rate is None else tokens / rate,
    )


def _layout(
    resolved: Resolved,
    full: LanguageModel,
    row: int,
    gpus: int,
    memory: float,
    share: int,
    shard: bool,
) -> Layout:
    """`share`: rows of a step for each GPU."""
    training = resolved.training
    parts = weight_parts(full, training)
    size = parts["weights"]
    part = {name: -(-value // gpus) if shard else value for name, value in parts.items()}
    gathered = (GATHERED + 1) * largest_unit(full) if shard else 0
    fixed = sum(part.values()) + gathered

    def loss(rows: int) -> int:
        here = training.model_copy(update={"batch_size": max(rows, 1)})
        return loss_bytes(full, here, torch.device("cpu"))

    rows = next((r for r in _down(fixed, row, memory) if fixed + row * r + loss(r) <= memory), 0)
    divisors = (n for n in range(min(rows, share), 0, -1) if share % n == 0)
    batch = next(divisors, 0)
    return Layout(
        shard=shard,
        grad_checkpoint=training.grad_checkpoint,
        weights=part["weights"],
        gradients=part["gradients"],
        optimizer=part["optimizer"],
        gathered=gathered,
        row=row,
        loss=loss(batch),
        rows=rows,
        batch_size=batch,
        grad_accum=share // batch if batch else 0,
        traffic=traffic(size, gpus, shard, share // batch if batch else 1),
    )


def _timed(
    one: Layout, speed: AssumedSpeed, gpus: int, step_tokens: int, flops_per_token: float
) -> Layout:
    """A layout with the time of a step of all GPUs' `step_tokens`, where a batch fits."""
    work = RECOMPUTING if one.grad_checkpoint else 1.0
    compute = speed.compute_seconds(step_tokens / gpus, flops_per_token, work)
    if compute is None or not one.batch_size:
        return one
    send = one.traffic / speed.link if speed.link is not None else None
    if gpus == 1:
        send = 0.0
    return replace(
        one,
        compute_seconds=compute,
        send_seconds=send,
        most_tokens_per_second=step_tokens / max(compute, send or 0.0),
        least_tokens_per_second=None if send is None else step_tokens / (compute + send),
    )


def _down(fixed: int, row: int, memory: float) -> Iterator[int]:
    """Numbers of rows that might fit, the largest first."""
    return iter(range(min(int(max(memory - fixed, 0) // max(row, 1)), MAX_ROWS), 0, -1))


def traffic(weights: int, gpus: int, shard: bool, grad_accum: int) -> int:
    """Bytes that one of `gpus` processes sends in a step, with rings, in float32.

    Without sharding: one all-reduce of the gradients, 2 (N - 1) / N of them. With it, for each
    forward and backward pass: blocks are gathered twice and gradients scattered once, (N - 1) / N
    of them each.
    """
    times = 3 * grad_accum if shard else 2
    return round(times * weights * (gpus - 1) / gpus)


def largest_unit(model: LanguageModel) -> int:
    """Bytes of what is gathered at once under --shard: a block, or all that is outside blocks."""
    blocks = getattr(model, "blocks", None)
    inside = list(blocks) if isinstance(blocks, nn.ModuleList) else []
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in inside]
    whole = sum(p.numel() * p.element_size() for p in model.parameters())
    return max([*sizes, whole - sum(sizes)])
