"""How training can fail, each as a sentence and the flags that help."""

from __future__ import annotations

import re

import torch.distributed as dist

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.errors import TrainingError
from holo_cli.names import quoted
from holo_cli.training.state import Progress
from holo_cli.wording import counted


def divergence_error(
    progress: Progress, config: TrainingConfig, loss: float, norm: float
) -> TrainingError:
    """A loss or a gradient that is not a number, before it reached the weights."""
    kept = progress.history[-1]["step"] if progress.history else None
    where = (
        f"the checkpoint of step {kept} is untouched"
        if kept is not None
        else "nothing was saved yet"
    )
    return TrainingError(
        f"Training diverged at step {progress.step + 1}: loss {loss:.4g}, gradient norm "
        f"{norm:.4g}; {where}.",
        next_step=f"Try --lr {config.lr / 3:.2g}, a longer warm-up "
        "(--set training.warmup=200), or --dtype float32.",
    )


def out_of_memory(progress: Progress, config: TrainingConfig, context: int) -> TrainingError:
    """What makes a step smaller, in the order of what it costs."""
    smaller, more = max(1, config.batch_size // 2), config.grad_accum * 2
    return TrainingError(
        f"Out of memory at step {progress.step + 1} with batches of {config.batch_size} "
        f"x {counted(context, 'token')}.",
        next_step=f"Try --batch-size {smaller} --grad-accum {more} (the same step in smaller "
        f"pieces), --grad-checkpoint, or --context {context // 2}.",
    )


# Gloo's errors are plain RuntimeErrors; NCCL's have types of their own.
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|socket timeout|timed out waiting|"
    r"no route to host|read error|write error|gloo.*(timeout|connect)",
    re.IGNORECASE,
)


def is_process_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run has ended or cannot be reached."""
    known = getattr(dist, "DistError", None)
    if known is not None and isinstance(error, known):
        return True
    return bool(_LOST.search(str(error)))


def process_lost(name: str, size: int, progress: Progress, saved: int | None) -> TrainingError:
    """One of `size` processes is gone. `saved`: the step of the last complete save."""
    step = progress.step + 1
    return TrainingError(
        f"Another of the {size} processes of this run ended or cannot be reached, at step {step}.",
        next_step=(
            f"Its own message says why. Step {saved} is saved: start the processes again with "
            f"holo resume {quoted(name)}."
        )
        if saved
        else "Its own message says why. Nothing was saved yet: start the processes again.",
    )
