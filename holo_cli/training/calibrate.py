"""How many steps this machine makes in a given time: for runs that must fit a person's patience.

A cooldown only helps if the run reaches its end, so a run of fixed duration needs to know its
number of steps before it starts.
"""

from __future__ import annotations

import time

import torch

from holo_cli import registry
from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import val_batches
from holo_cli.data.dataset import PreparedData
from holo_cli.training.evaluate import TOKENS_PER_BATCH
from holo_cli.training.loss import nats_per_token
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import autocast, pick_device, pick_dtype
from holo_cli.training.state import Progress
from holo_cli.training.trainer import Trainer
from holo_cli.training.training_run import training_rows

WARM, TIMED = 3, 8  # steps thrown away (first-use costs), and steps timed
EVALUATED = 1.0  # seconds of evaluation after which the rest of the text is extrapolated


def steps_within(resolved: Resolved, seconds: float) -> int:
    """Optimizer steps of this config that take about `seconds` of training here.

    Trains a few steps on a throw-away model, which go through the whole schedule with all that
    changes on the way (depth, say); writes nothing and leaves the global random state as it was.
    """
    step, _ = seconds_of(resolved, evaluation=False)
    return max(1, int(seconds / step))


def seconds_of(resolved: Resolved, *, evaluation: bool = True) -> tuple[float, float]:
    """Seconds of one optimizer step and of one evaluation of the whole validation text, here.

    Measured on a throw-away model, as `steps_within` does. Without `evaluation` the second is 0.
    """
    config = resolved.training.model_copy(
        update={
            "steps": WARM + TIMED + 1, "warmup": 0, "log_every": WARM, "time_limit": None,
            "compile": False,
        }
    )  # fmt: skip
    device = pick_device(config.device)
    data = PreparedData.open(resolved.data.path, verify=False)
    shape = resolved.model.model_copy(update={"vocab_size": data.tokenizer.vocab_size})
    with torch.random.fork_rng(devices=[]):
        stages = shape.stages()
        first = shape.at_depth(stages[0].layers) if stages else shape
        model = registry.build_model(resolved.model_name, first).to(device)
        dtype = pick_dtype(config.dtype, device)
        optimizer = Optimizer(model, config, fast_bf16=dtype == torch.bfloat16)
        trainer = Trainer(
            model, optimizer, data, config.model_copy(update={"eval_every": 10**9}), dtype,
            Progress(), events=lambda event: None, save=lambda kind, trainer: None,
            stages=stages, batches=training_rows(resolved, data),
        )  # fmt: skip
        model.train()
        for _ in range(WARM):
            trainer.step()
        before = trainer.progress.train_seconds
        for _ in range(TIMED):
            trainer.step()
        step = (trainer.progress.train_seconds - before) / TIMED
        return step, _evaluation(trainer, data, dtype) if evaluation else 0.0


def _evaluation(trainer: Trainer, data: PreparedData, dtype: torch.dtype) -> float:
    """Seconds of scoring the validation text, extrapolated from its first EVALUATED seconds."""
    model = trainer.model
    context = model.config.context
    rows = trainer.config.eval_batch_size or max(1, TOKENS_PER_BATCH // context)
    model.eval()
    scored, started = 0, time.perf_counter()
    with torch.inference_mode(), autocast(model.device, dtype):
        for x, y in val_batches(data.split("val"), context, rows, data.tokenizer.end):
            hidden = model.hidden(x.to(model.device)).x
            nats_per_token(hidden, model.head, y.to(model.device)).sum().item()
            scored += x.numel()
            if time.perf_counter() - started > EVALUATED:
                break
    seconds = time.perf_counter() - started
    return seconds * max(1.0, data.token_count("val") / scored)
