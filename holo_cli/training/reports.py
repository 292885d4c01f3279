"""What a trainer reports while it runs, as events: lines of metrics, evaluations, samples, stages.

None of it changes what is trained.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from holo_cli.checkpoint import model_tensors
from holo_cli.models.base import LanguageModel
from holo_cli.training.evaluate import calibrate, evaluate_sets, model_measures
from holo_cli.training.failures import divergence_error
from holo_cli.training.growth import stage_at, steps_left
from holo_cli.training.schedule import lr_multiplier

if TYPE_CHECKING:
    from holo_cli.training.trainer import Event, Trainer

EARLY_SAMPLE = 20.0  # seconds of training after which a first sample is due, evaluated or not


def train_line(trainer: Trainer) -> None:
    """Means since the last line; resets their sums. All processes must call this together."""
    progress, config = trainer.progress, trainer.config
    seconds, tokens = trainer.logged_at
    trainer.logged_at = (progress.train_seconds, progress.tokens)
    elapsed = max(progress.train_seconds - seconds, 1e-9)
    speed = (progress.tokens - tokens) / elapsed
    progress.train_loss = progress.logged_loss / progress.logged_steps
    per_step = elapsed / progress.logged_steps
    depth = trainer.model.config.layers
    left = steps_left(trainer.stages, progress.step, config.steps, depth) * per_step
    if config.time_limit:
        left = min(left, config.time_limit - progress.train_seconds)
    aux = {
        name: trainer.world.mean(value) / progress.logged_steps
        for name, value in sorted(progress.aux.items())  # the same order in all processes
    }
    progress.logged_loss, progress.logged_steps, progress.aux = 0.0, 0, {}
    trainer.events(
        {
            "event": "train",
            "step": progress.step,
            "steps": config.steps,
            "tokens": progress.tokens,
            "epoch": round(trainer.batches.epoch, 4),
            "loss": progress.train_loss,
            "lr": config.lr * lr_multiplier(progress.step - 1, config),
            "grad_norm": trainer.norm,
            "tokens_per_second": round(speed, 1),
            "seconds": round(progress.train_seconds, 3),
            "eta_seconds": round(max(left, 0.0), 1),
        }
        | ({"aux": aux} if aux else {})
    )


def stage(trainer: Trainer, more: Event) -> None:
    """Record the stage of growth that begins now; `more` goes into the event alone."""
    progress, steps = trainer.progress, trainer.config.steps
    row = {
        "stage": stage_at(trainer.stages, progress.step, steps) + 1,
        "step": progress.step,
        "tokens": progress.tokens,
        "layers": trainer.model.config.layers,
        "parameters": trainer.parameter_count,
        "train_seconds": round(progress.train_seconds, 3),
    }
    progress.stages.append(row)
    trainer.events({"event": "stage", "steps": steps, "stages": len(trainer.stages)} | row | more)


def early_sample(trainer: Trainer) -> None:
    """A sample without an evaluation, unless one comes soon: on a slow machine the first evaluation
    is minutes away."""
    progress, config = trainer.progress, trainer.config
    trainer.sampled = True
    left = config.eval_every - progress.step % config.eval_every
    soon = left * progress.train_seconds / progress.step < EARLY_SAMPLE
    if soon or not (trainer.sample and config.sample_tokens and trainer.world.is_main):
        return
    if trainer.placement.spread:  # a whole model takes all processes, whose clocks differ
        return
    started = time.perf_counter()
    text = trainer.sample(trainer.model)
    trainer.model.train()
    progress.eval_seconds += time.perf_counter() - started
    trainer.events(
        {"event": "sample", "step": progress.step, "steps": config.steps, "sample": text}
    )


def evaluation(trainer: Trainer, model: LanguageModel) -> None:
    """Loss of `model` on the whole validation set, a sample text, and a checkpoint if it is the
    best. For the first process alone. Raises TrainingError for a loss that is not finite."""
    progress, config, data = trainer.progress, trainer.config, trainer.data
    assert data is not None, "without a prepared set there is nothing to evaluate on"
    trainer.sampled = True
    started = time.perf_counter()
    calibrate(model, data, trainer.dtype)
    result, by_set = evaluate_sets(model, data, trainer.dtype, rows=config.eval_batch_size)
    if not math.isfinite(result.loss):
        raise divergence_error(progress, config, result.loss, math.nan)
    best = progress.best_val is None or result.loss < progress.best_val
    progress.val_loss, progress.bpb = result.loss, result.bpb
    if best:
        progress.best_val, progress.best_step = result.loss, progress.step
    measures = model_measures(model, data, trainer.dtype) | result.measures
    text = trainer.sample(model) if trainer.sample and config.sample_tokens else ""
    model.train()
    seconds = time.perf_counter() - started
    progress.eval_seconds += seconds
    row: dict[str, Any] = {
        "step": progress.step,
        "tokens": progress.tokens,
        "val_loss": result.loss,
        "bpb": result.bpb,
        "train_seconds": round(progress.train_seconds, 3),
    }
    if trainer.stages:
        row["layers"] = trainer.model.config.layers
    if by_set:
        row["sets"] = {name: {"val_loss": one.loss, "bpb": one.bpb} for name, one in by_set.items()}
    progress.history.append(row)
    trainer.events(
        {"event": "eval", "steps": config.steps, "best": best, "seconds": round(seconds, 3)}
        | row
        | ({"measures": measures} if measures else {})
        | ({"sample": text} if text else {})
    )
    if best:
        trainer.save("best", trainer, model_tensors(model))
