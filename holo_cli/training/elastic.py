"""Resuming with another number of processes: the same rows in every step, divided among them.

A step reads batch_size x grad_accum x processes rows, and that product is kept: 8 processes, then
2, then 1 read the rows that one uninterrupted run reads, in the same steps. A batch never gets
larger than it was, so a process needs no more memory for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from holo_cli.checkpoint import Header
from holo_cli.config.resolve import Resolved
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import TrainBatches
from holo_cli.errors import UsageError
from holo_cli.names import quoted
from holo_cli.training.state import Progress
from holo_cli.wording import counted


def stored_processes(header: Header, tensors: Iterable[str]) -> int:
    """How many processes wrote a checkpoint: by its header, in older files by their random states.

    A file of weights without that number counts as one of a single process.
    """
    if header.processes:
        return header.processes
    return max(1, sum(name.startswith("rng/cpu") for name in tensors))


def divided(resolved: Resolved, run: str, before: int, now: int) -> Resolved:
    """The config with which `now` processes read in each step what `before` read.

    Raises UsageError where the rows of a step cannot be divided among them.
    """
    config = resolved.training
    rows = config.batch_size * config.grad_accum * before
    if before == now:
        return resolved
    if config.world_invariant:
        return _whole_batches(resolved, run, before, now)
    if rows % now:
        fewer = max(n for n in range(1, now) if rows % n == 0)
        raise UsageError(
            f"A step of run '{run}' has {counted(rows, 'row')}, which {now} processes cannot share "
            "equally.",
            next_step=f"Start {counted(fewer, 'process')}, or another number that divides {rows}: "
            f"holo resume {quoted(run)}",
        )
    each = rows // now
    batch = max(n for n in range(1, min(config.batch_size, each) + 1) if each % n == 0)
    changes = {"training.batch_size": batch, "training.grad_accum": each // batch}
    return resolved.replace(changes, source=f"divided among {counted(now, 'process')}")


def _whole_batches(resolved: Resolved, run: str, before: int, now: int) -> Resolved:
    """The same where batches must stay as they are. Raises UsageError."""
    batches = resolved.training.grad_accum * before
    if batches % now:
        fewer = max(n for n in range(1, now) if batches % n == 0)
        raise UsageError(
            f"A step of run '{run}' has {counted(batches, 'batch')}, which {now} processes cannot "
            "share equally.",
            next_step=f"Start {counted(fewer, 'process')}, or another number that divides "
            f"{batches}: holo resume {quoted(run)}",
        )
    changes = {"training.grad_accum": batches // now}
    return resolved.replace(changes, source=f"divided among {counted(now, 'process')}")


def check_group(config: TrainingConfig, world: int) -> None:
    """Raises UsageError where the processes cannot form groups of `training.shard_group`."""
    size = config.shard_group
    if config.shard and size and world % size:
        raise UsageError(
            f"training.shard_group ({size}) must divide the {world} processes of the run.",
            next_step="Use the number of processes of one machine, or 0 for one group of all.",
        )


def redivide(
    progress: Progress, before: tuple[int, int], now: tuple[int, int], batches: TrainBatches
) -> bool:
    """Express the part of a step that is done in micro-steps of `now`; whether that was possible.

    `before` and `now`: (rows of a micro-step in all processes, micro-steps of a step). Where the
    rows done are no whole number of micro-steps, the step starts over: its rows are read again and
    its gradients must be dropped.
    """
    done = progress.micro * before[0]
    if done % now[0] == 0:
        progress.micro = done // now[0]
        return True
    start_over(progress, before, batches)
    return False


def start_over(progress: Progress, before: tuple[int, int], batches: TrainBatches) -> None:
    """Forget the part of a step that is done. `before`: as for `redivide`."""
    done = progress.micro * before[0]
    first = progress.windows - done
    progress.tokens -= batches.scored(first, done)
    progress.windows = first
    # means over micro-steps: the share of those that are made again
    share = progress.logged_steps / (progress.logged_steps + progress.micro / before[1])
    progress.aux = {name: value * share for name, value in progress.aux.items()}
    progress.micro, progress.step_loss = 0, 0.0
