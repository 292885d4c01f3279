"""How many steps this machine makes in a given time: for runs of a fixed duration.

A cooldown only helps if the run reaches its end, so a run of fixed duration needs to know its
number of steps before it starts.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import val_batches
from holo_cli.data.dataset import PreparedData
from holo_cli.training.build import build_trainer, new_model, train_batches
from holo_cli.training.evaluate import TOKENS_PER_BATCH
from holo_cli.training.loss import nats_per_token
from holo_cli.training.precision import autocast
from holo_cli.training.trainer import Trainer

WARM, TIMED = 3, 8  # steps of warm-up that are not timed, and steps timed
EVALUATED = 1.0  # seconds of evaluation after which the rest of the text is extrapolated


def steps_within(resolved: Resolved, seconds: float) -> int:
    """Optimizer steps of this config that take about `seconds` of training here.

    Trains a few steps of a short schedule with all its stages of growth on a temporary model;
    writes nothing and leaves the global random state as it was.
    """
    step, _ = seconds_of(resolved, evaluation=False)
    return max(1, int(seconds / step))


def seconds_of(resolved: Resolved, *, evaluation: bool = True) -> tuple[float, float]:
    """Seconds of one optimizer step and of one evaluation of the whole validation text, here.

    Measured as in `steps_within`. Without `evaluation` the second is 0.
    """
    config = resolved.training.model_copy(
        update={
            "steps": WARM + TIMED + 1, "warmup": 0, "log_every": WARM, "time_limit": None,
            "compile": False,
        }
    )  # fmt: skip
    data = PreparedData.open(resolved.data.path, verify=False)
    shape = resolved.model.model_copy(update={"vocab_size": data.tokenizer.vocab_size})
    resolved = replace(resolved, model=shape, training=config)
    with torch.random.fork_rng(devices=[]):
        trainer = build_trainer(
            resolved, new_model(resolved), train_batches(resolved, data), data=data
        )
        for _ in range(WARM):
            trainer.step()
        before = trainer.progress.train_seconds
        for _ in range(TIMED):
            trainer.step()
        step = (trainer.progress.train_seconds - before) / TIMED
        return step, _evaluation(trainer, data) if evaluation else 0.0


def _evaluation(trainer: Trainer, data: PreparedData) -> float:
    """Seconds of scoring the validation text, extrapolated from its first EVALUATED seconds."""
    model = trainer.model
    context = model.config.context
    rows = trainer.config.eval_batch_size or max(1, TOKENS_PER_BATCH // context)
    model.eval()
    scored, started = 0, time.perf_counter()
    with torch.inference_mode(), autocast(model.device, trainer.dtype):
        for x, y in val_batches(data.stream("val"), context, rows, data.tokenizer.end):
            hidden = model.hidden(x.to(model.device)).x
            nats_per_token(hidden, model.head, y.to(model.device)).sum().item()
            scored += x.numel()
            if time.perf_counter() - started > EVALUATED:
                break
    seconds = time.perf_counter() - started
    return seconds * max(1.0, data.token_count("val") / scored)
