"""The training loop, the only one, for every model.

A step is `grad_accum` micro-steps (forward, backward) and one update. The loop can stop between
any two micro-steps and resumes from its saved state to the same bits. Non-finite losses and
gradients are caught before they reach the weights. Between steps the model may grow (`growth.py`),
so callers read model and optimizer from the trainer. It emits events (plain dicts) and saves
through `Saver`; it knows no files and no terminal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from holo_cli.checkpoint import model_tensors
from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.config.model_schema import Stage
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import IGNORE, TrainBatches, shorten
from holo_cli.data.dataset import PreparedData
from holo_cli.layers.unlikelihood import Unlikelihood
from holo_cli.models.base import LanguageModel
from holo_cli.training.allocator import keep_freed_memory
from holo_cli.training.compile import Forward, compile_hidden
from holo_cli.training.distributed import World
from holo_cli.training.evaluate import calibrate, evaluate_sets, model_measures
from holo_cli.training.failures import divergence_error, out_of_memory
from holo_cli.training.growth import grow, layers_due, sample_loss, stage_at, steps_left
from holo_cli.training.loss import cross_entropy, penalized_loss
from holo_cli.training.memory_estimate import is_out_of_memory, memory_figures
from holo_cli.training.optim import Optimizer, clip_grad_norm
from holo_cli.training.precision import autocast
from holo_cli.training.schedule import context_at, lr_multiplier
from holo_cli.training.sharded_tensors import gathered, whole_tensor
from holo_cli.training.state import Progress, rng_states, training_tensors
from holo_cli.training.stopping import StopRequest

if TYPE_CHECKING:
    from holo_cli.training.sharding import ShardedModel

EARLY_SAMPLE = 20.0  # seconds of training after which a first sample is due, evaluated or not

Event = dict[str, Any]
Events = Callable[[dict[str, Any]], None]


class Saver(Protocol):
    """Writes the run's checkpoints: `best` weights, or `last` with the whole state."""

    def __call__(
        self, kind: Literal["best", "last"], trainer: Trainer, tensors: dict[str, Tensor]
    ) -> None: ...


class Trainer:
    """Trains `model` until the schedule ends or something stops it; see `build.build_trainer`."""

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        batches: TrainBatches,
        config: TrainingConfig,
        dtype: torch.dtype,
        progress: Progress,
        *,
        data: PreparedData | None,
        events: Events,
        save: Saver,
        sample: Callable[[LanguageModel], str] | None,
        stages: Sequence[Stage],
        fixed_progress: float | None,
    ) -> None:
        """Without `stages` the model does not grow. Without `data` there are no evaluations.

        `fixed_progress` is passed to the model's `on_progress` at every step instead of the
        fraction of steps done.
        """
        keep_freed_memory()
        self.config, self.dtype, self.stages = config, dtype, stages
        self.data, self.progress = data, progress
        self.events, self.save, self.sample = events, save, sample
        self.stop = StopRequest()
        self.stop_at: int | None = None
        self.world = World()
        self.context = model.config.context
        self.fixed_progress = fixed_progress
        self.batches = batches
        self.batches.position = progress.windows
        self._in_step = (-1, 0)  # a step, and the scored targets in all its rows
        self.saved = progress.step or None  # the step of the last complete save
        self._sampled = progress.step > 0  # a resumed run has shown one
        self.random: dict[str, list[Tensor]] = {}  # of every process, at the last save
        self.shards: ShardedModel | None = None
        self._fraction = 1.0  # of the schedule, as the model was last told
        self._logged_at = (progress.train_seconds, progress.tokens)
        self._set_model(model, optimizer)

    @property
    def _text(self) -> PreparedData:
        assert self.data is not None, "without a prepared set there is nothing to evaluate on"
        return self.data

    def _set_model(self, model: LanguageModel, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters = list(model.parameters())
        self.hidden: Forward = model.hidden

    def shard(self) -> None:
        """Spread the model over the processes of `world`, before anything of its state is loaded.

        All processes must call this together.
        """
        from holo_cli.training.sharding import ShardedModel

        self.shards = ShardedModel(self.model, self.config, self.dtype, self.world)
        model = self.shards.model
        self._set_model(model, type(self.optimizer)(model, self.config, self.optimizer.fast_bf16))

    def share(self, parts: dict[str, int]) -> dict[str, int]:
        """Bytes of memory by part, of the whole model -> of one process."""
        return parts if self.shards is None else self.shards.share(parts)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters)

    # -- the whole run ----------------------------------------------------------------------------

    def run(self) -> str:
        """Returns what ended it: steps, target-loss, time-limit, stop-at or signal."""
        progress, config = self.progress, self.config
        self.model.train()
        self._compile()
        try:
            while progress.step < config.steps:
                if not self.step():
                    self._save_last()
                    return self.stop.reason
                ended = self._after_step()
                if ended:
                    return ended
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise out_of_memory(progress, config, self.context) from error
            raise
        self._save_last()
        return "steps"

    def _after_step(self) -> str:
        """Log, evaluate, save; returns the reason to end the run, or ""."""
        progress, config = self.progress, self.config
        step = progress.step
        ended = ""
        # clocks differ between processes, and all must end at the same step
        if config.time_limit and self.world.any(progress.train_seconds >= config.time_limit):
            ended = "time-limit"
        if step % config.log_every == 0:
            self._log()
        last = step == config.steps
        if step % config.eval_every == 0 or last or ended:
            self.evaluate()
            if config.target_loss and (progress.val_loss or math.inf) <= config.target_loss:
                ended = "target-loss"
            if not last:  # the last step is saved once, by `run`
                self._save_last()
        elif config.save_every and step % config.save_every == 0:
            self._save_last()
        if not self._sampled and progress.train_seconds >= EARLY_SAMPLE:
            self._early_sample()
        if not ended and step == self.stop_at and not last:
            self._save_last()
            ended = "stop-at"
        return ended

    # -- the model that is trained ----------------------------------------------------------------

    def _compile(self) -> None:
        if not self.config.compile or self.shards is not None:  # its blocks are compiled
            return
        self.hidden, problem = compile_hidden(self.model)
        if problem:
            self.warn(f"torch.compile does not work here ({problem}); training without it.")

    def _grow(self) -> None:
        """Before the first step of a stage, replace model and optimizer by the deeper ones.

        The depth never shrinks when a resumed run's schedule is longer; a step that was stopped in
        the middle is finished first.
        """
        progress, model = self.progress, self.model
        if self.stages and not progress.stages:
            self._begin_stage({})
        due = layers_due(self.stages, progress.step, self.config.steps)
        if progress.micro or due <= model.config.layers:
            return
        model, optimizer = self._whole_state()
        before = self._sample_loss(model)
        self._set_model(*grow(model, optimizer, due, self.config.weights_seed))
        after = self._sample_loss(self.model)
        figures = memory_figures(self.model, self.config, self.dtype)
        if self.shards is not None:
            state = self.optimizer.state_tensors()
            self.shard()
            self.optimizer.load_state_tensors(state)
        self._compile()
        losses = {} if self.data is None else {"loss_before": before, "loss_after": after}
        self._begin_stage(losses | figures)

    def _whole_state(self) -> tuple[LanguageModel, Optimizer]:
        """Model and optimizer as one process has them, in every process."""
        if self.shards is None:
            return self.model, self.optimizer
        model = self.shards.whole(everywhere=True)
        assert model is not None
        state = {name: whole_tensor(t) for name, t in self.optimizer.state_tensors().items()}
        optimizer = type(self.optimizer)(model, self.config, self.optimizer.fast_bf16)
        optimizer.load_state_tensors(state)
        return model, optimizer

    def _sample_loss(self, model: LanguageModel) -> float:
        if self.data is None or not self.world.is_main:
            return 0.0
        return sample_loss(model, self.data, self.dtype)

    def _begin_stage(self, more: Event) -> None:
        """Record the stage that begins now; `more` goes into the event alone."""
        progress = self.progress
        row = {
            "stage": stage_at(self.stages, progress.step, self.config.steps) + 1,
            "step": progress.step,
            "tokens": progress.tokens,
            "layers": self.model.config.layers,
            "parameters": sum(p.numel() for p in self.parameters),
            "train_seconds": round(progress.train_seconds, 3),
        }
        progress.stages.append(row)
        self.events(
            {"event": "stage", "steps": self.config.steps, "stages": len(self.stages)} | row | more
        )

    # -- one step ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """One update; False if a request to stop came first (the state is then mid-step).

        Includes growth and `on_progress`, so that callers that step without `run` train the same.
        """
        progress, config = self.progress, self.config
        self._grow()
        fraction = progress.step / config.steps
        self._fraction = fraction if self.fixed_progress is None else self.fixed_progress
        self.model.on_progress(self._fraction)
        while progress.micro < config.grad_accum:
            if self.world.any(bool(self.stop)):
                self.stop.ask("signal")
                return False
            started = time.perf_counter()
            self._micro_step()
            progress.train_seconds += time.perf_counter() - started
        started = time.perf_counter()
        loss = self._all_reduce()
        norm = clip_grad_norm(self.parameters, config.clip).item()
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise divergence_error(progress, config, loss, norm)
        self.optimizer.set_lr(lr_multiplier(progress.step, config))
        self.optimizer.step()
        for p in self.parameters:
            p.grad = None
        progress.train_seconds += time.perf_counter() - started
        progress.step += 1
        progress.micro = 0
        progress.step_loss = 0.0
        progress.logged_loss += loss
        progress.logged_steps += 1
        self._norm = norm
        return True

    def _all_reduce(self) -> float:
        """All-reduce (mean) the accumulated gradients and loss; returns the loss."""
        if self.world.size > 1:
            # the gradients of sharded parameters are averaged by each backward pass
            parameters = self.parameters if self.shards is None else self.shards.numbers
            for p in parameters:  # unused in one process, maybe used in another
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            self.world.average([p.grad for p in parameters if p.grad is not None])
        self.progress.step_loss = self.world.mean(self.progress.step_loss)
        return self.progress.step_loss

    def _micro_step(self) -> None:
        """Forward and backward of one batch; gradients add up to the mean over the step's tokens.

        With rows of one length that is the mean of the batches' means; else longer rows weigh more.
        Auxiliary losses are means over all positions, scored or not: their batches weigh the same.
        """
        progress, config, world = self.progress, self.config, self.world
        rows = config.batch_size * world.size  # of this micro-step, in all processes
        begin = self.batches.position
        if self._in_step[0] != progress.step:
            first = begin - progress.micro * rows
            self._in_step = progress.step, self.batches.scored(first, config.grad_accum * rows)
        x, y = self.batches.take(config.batch_size, world.rank, world.size)
        context = context_at(progress.step, self.context, config)
        if context != self.context:
            x, y = shorten(x, y, context)
        parts = self._in_step[1] / (int((y != IGNORE).sum()) * world.size)
        x, y = x.to(self.model.device), y.to(self.model.device)
        with autocast(self.model.device, self.dtype):
            hidden, aux = self.hidden(x)
        if config.unlikelihood:
            end = None if self.data is None else self.data.tokenizer.end
            penalty = Unlikelihood(x, y, config.unlikelihood, config.unlikelihood_span, end)
            objective, loss, repeats = penalized_loss(
                hidden, self.model.head, y, penalty, self.dtype
            )
            self._add_aux("unlikelihood", repeats / parts)
        else:
            objective = loss = cross_entropy(hidden, self.model.head, y, self.dtype)
        total: Tensor = objective / parts
        for name, extra in aux.items():
            extra = extra / config.grad_accum
            total = total + extra
            self._add_aux(name, extra)
        total.backward()
        progress.step_loss += loss.item() / parts
        progress.micro += 1
        progress.tokens += self.batches.scored(begin, rows)
        progress.windows = self.batches.position

    def _add_aux(self, name: str, value: Tensor) -> None:
        self.progress.aux[name] = self.progress.aux.get(name, 0.0) + value.item()

    # -- events and checkpoints -------------------------------------------------------------------

    def _log(self) -> None:
        progress, config = self.progress, self.config
        seconds, tokens = self._logged_at
        self._logged_at = (progress.train_seconds, progress.tokens)
        elapsed = max(progress.train_seconds - seconds, 1e-9)
        speed = (progress.tokens - tokens) / elapsed
        progress.train_loss = progress.logged_loss / progress.logged_steps
        per_step = elapsed / progress.logged_steps
        depth = self.model.config.layers
        left = steps_left(self.stages, progress.step, config.steps, depth) * per_step
        if config.time_limit:
            left = min(left, config.time_limit - progress.train_seconds)
        aux = {
            name: self.world.mean(value) / progress.logged_steps
            for name, value in sorted(progress.aux.items())  # the same order in all processes
        }
        progress.logged_loss, progress.logged_steps, progress.aux = 0.0, 0, {}
        self.events(
            {
                "event": "train",
                "step": progress.step,
                "steps": config.steps,
                "tokens": progress.tokens,
                "epoch": round(self.batches.epoch, 4),
                "loss": progress.train_loss,
                "lr": config.lr * lr_multiplier(progress.step - 1, config),
                "grad_norm": self._norm,
                "tokens_per_second": round(speed, 1),
                "seconds": round(progress.train_seconds, 3),
                "eta_seconds": round(max(left, 0.0), 1),
            }
            | ({"aux": aux} if aux else {})
        )

    def _early_sample(self) -> None:
        """A sample without an evaluation, unless one comes soon: on a slow machine the first one is
        minutes away. Like those of evaluations it changes nothing about training."""
        progress, config = self.progress, self.config
        self._sampled = True
        left = config.eval_every - progress.step % config.eval_every
        soon = left * progress.train_seconds / progress.step < EARLY_SAMPLE
        if soon or not (self.sample and config.sample_tokens and self.world.is_main):
            return
        if self.shards is not None:  # a whole model takes all processes, whose clocks differ
            return
        started = time.perf_counter()
        text = self.sample(self.model)
        self.model.train()
        progress.eval_seconds += time.perf_counter() - started
        self.events(
            {"event": "sample", "step": progress.step, "steps": config.steps, "sample": text}
        )

    def evaluate(self) -> None:
        """Loss on the whole validation set, a sample text, and a checkpoint if it is the best."""
        model: LanguageModel | None = self.model
        if self.shards is not None:
            model = self.shards.whole()
            if model is not None:
                model.on_progress(self._fraction)
        # only the first process evaluates; the others wait for the result
        if model is not None and self.world.is_main:
            self._evaluate(model)
        self.progress.val_loss = self.world.broadcast(self.progress.val_loss)
        if self.shards is not None:
            self.shards.take_buffers(model)

    def _evaluate(self, model: LanguageModel) -> None:
        progress = self.progress
        self._sampled = True
        started = time.perf_counter()
        calibrate(model, self._text, self.dtype)
        rows = self.config.eval_batch_size
        result, by_set = evaluate_sets(model, self._text, self.dtype, rows=rows)
        if not math.isfinite(result.loss):
            raise divergence_error(progress, self.config, result.loss, math.nan)
        best = progress.best_val is None or result.loss < progress.best_val
        progress.val_loss, progress.bpb = result.loss, result.bpb
        if best:
            progress.best_val, progress.best_step = result.loss, progress.step
        measures = model_measures(model, self._text, self.dtype) | result.measures
        text = self.sample(model) if self.sample and self.config.sample_tokens else ""
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
        if self.stages:
            row["layers"] = self.model.config.layers
        if by_set:
            row["sets"] = {
                name: {"val_loss": one.loss, "bpb": one.bpb} for name, one in by_set.items()
            }
        progress.history.append(row)
        self.events(
            {
                "event": "eval",
                "steps": self.config.steps,
                "best": best,
                "seconds": round(seconds, 3),
            }
            | row
            | ({"measures": measures} if measures else {})
            | ({"sample": text} if text else {})
        )
        if best:
            self.save("best", self, model_tensors(model))

    def _save_last(self) -> None:
        """Write everything from the first process; all processes contribute their state."""
        if self.progress.micro:
            self._all_reduce()
        mean = self.world.mean
        self.progress.aux = {name: mean(v) for name, v in sorted(self.progress.aux.items())}
        self.random = {name: self.world.all_gather(t) for name, t in rng_states().items()}
        tensors = model_tensors(self.model)
        tensors |= training_tensors(self.model, self.optimizer, self.random)
        if self.shards is not None:
            same = {MODEL_PREFIX + name: MODEL_PREFIX + first for name, first in self.shards.tied}
            tensors = gathered(tensors, same, keep=self.world.is_main)
        if self.world.is_main:
            self.save("last", self, tensors)
        self.world.barrier()
        self.saved = self.progress.step

    def warn(self, message: str) -> None:
        self.events({"event": "warning", "step": self.progress.step, "message": message})
