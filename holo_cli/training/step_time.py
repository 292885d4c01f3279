"""How long a run takes here, from a few short steps: for schedules that fit a time, and for ETAs.

`calibrate.py` measures whole steps, which at large sizes takes minutes. Here a step has as many
rows as make about a second of work on a slow machine, and is scaled to the run's batch; the
optimizer, which works once a step whatever the batch, is measured apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from holo_cli import registry
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import TrainBatches
from holo_cli.training.build import build_trainer
from holo_cli.training.capacity import check_run
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import pick_device

WORK = 1e11  # floating-point operations of a measured forward and backward pass, at most
SECONDS, STEPS = 1.5, 8  # of timed steps, whichever ends first
FORWARD = 1 / 3  # share of the forward pass in the work of a training token


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step, and of one token of evaluation."""

    step: float
    evaluated_token: float

    def run(self, steps: int, evaluations: int, val_tokens: int) -> float:
        """Seconds of a run; sampling and saving not counted."""
        return steps * self.step + evaluations * val_tokens * self.evaluated_token


class _Timed(Optimizer):
    """The optimizer of every run, with the time of its updates."""

    seconds = 0.0

    def step(self, *args: Any, **named: Any) -> None:
        started = time.perf_counter()
        super().step(*args, **named)
        self.seconds += time.perf_counter() - started


def measure_step(resolved: Resolved, vocab_size: int, *, force: bool = False) -> StepTime:
    """Trains a few steps on random tokens; leaves the global random state as it was.

    A growing model is measured at its full depth. Raises UsageError, unless `force`, for a run that
    cannot fit into memory.
    """
    shape = resolved.model.model_copy(update={"vocab_size": vocab_size})
    check_run(replace(resolved, model=shape), force=force)
    flops = shapes_only(resolved.model_name, shape).describe().train_flops_per_token
    config = resolved.training
    rows = max(1, min(config.batch_size, int(WORK / flops / shape.context)))
    long = 10**9
    short = config.model_copy(
        update={
            "steps": long, "eval_every": long, "log_every": long, "warmup": 0, "batch_size": rows,
            "grad_accum": 1, "time_limit": None, "target_loss": None, "compile": False,
            "ramp_context": 0,
        }
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        device = pick_device(config.device)
        model = registry.build_model(resolved.model_name, shape).to(device)
        batches = random_rows(vocab_size, shape.context, rows)
        trainer = build_trainer(
            replace(resolved, model=shape, training=short), model, batches,
            stages=(), optimizer=_Timed,
        )  # fmt: skip
        trainer.step()  # first use takes longer
        optimizer = trainer.optimizer
        assert isinstance(optimizer, _Timed)
        updating, begun, steps = optimizer.seconds, time.perf_counter(), 0
        while steps < STEPS and (not steps or time.perf_counter() - begun < SECONDS):
            trainer.step()
            steps += 1
        seconds = time.perf_counter() - begun
    update = (optimizer.seconds - updating) / steps
    token = (seconds / steps - update) / (rows * shape.context)
    tokens = config.batch_size * config.grad_accum * shape.context
    return StepTime(token * tokens + update, token * FORWARD)


def random_rows(vocab_size: int, context: int, rows: int) -> TrainBatches:
    """Training rows of random tokens: the time of a step does not depend on the tokens."""
    length = (context + 1) * max(16, 2 * rows)
    random = np.random.default_rng(0).integers(vocab_size, size=length, dtype=np.uint32)
    return TrainBatches([random], context, seed=0)
