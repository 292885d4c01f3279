"""The training loop, the only one, for every model.

A step is `grad_accum` micro-steps (forward, backward) and one update. The loop can stop between
any two micro-steps and resumes from its saved state to the same bits. Non-finite losses and
gradients are caught before they reach the weights. Between steps the model may grow (`growth.py`),
so callers read model and optimizer from the trainer. It emits events (plain dicts, `reports.py`)
and saves through `Saver`; it knows no files and no terminal. What differs where the model is spread
over several processes is in `placement.py`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from holo_cli.checkpoint import model_tensors
from holo_cli.config.model_schema import Stage
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import IGNORE, TrainBatches, shorten
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import HoloError
from holo_cli.layers.unlikelihood import Unlikelihood
from holo_cli.models.base import LanguageModel
from holo_cli.training import reports
from holo_cli.training.allocator import keep_freed_memory
from holo_cli.training.compile import Forward, compile_hidden
from holo_cli.training.distributed import World
from holo_cli.training.elastic import start_over
from holo_cli.training.failures import divergence_error, out_of_memory
from holo_cli.training.growth import grow, layers_due, sample_loss
from holo_cli.training.invariant import GradientSums, batch_seed, clip_exactly
from holo_cli.training.loss import cross_entropy, penalized_loss
from holo_cli.training.loss_scale import LossScale
from holo_cli.training.memory_estimate import is_out_of_memory, memory_figures
from holo_cli.training.optim import Optimizer, clip_grad_norm
from holo_cli.training.placement import Placement
from holo_cli.training.precision import autocast, read_scalars
from holo_cli.training.schedule import context_at, lr_multiplier
from holo_cli.training.state import Progress, rng_states, training_tensors
from holo_cli.training.stopping import StopRequest

if TYPE_CHECKING:
    from holo_cli.training.sharded_saving import BackgroundSaves

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
    ) -> None:
        """Without `stages` the model does not grow. Without `data` there are no evaluations."""
        keep_freed_memory()
        self.config, self.dtype, self.stages = config, dtype, stages
        self.data, self.progress = data, progress
        self.scale = LossScale(progress, dtype)
        self.events, self.save, self.sample = events, save, sample
        self.stop = StopRequest()
        self.background: BackgroundSaves | None = None  # how a sharded run saves `last`
        self.stop_at: int | None = None
        self.world = World()
        self.context = model.config.context
        self.batches = batches
        self.batches.position = progress.windows
        self._in_step = (-1, 0)  # a step, and the scored targets in all its rows
        self.saved = progress.step or None  # the step of the last complete save
        self.sampled = progress.step > 0  # a resumed run has shown one
        self.random: dict[str, list[Tensor]] = {}  # of every process, at the last save
        self._figures: list[tuple[str, Tensor, float]] = []  # "" or an aux loss, value, its share
        self.logged_at = (progress.train_seconds, progress.tokens)
        self.norm = math.nan  # of the last step's gradients
        self._set_model(model, optimizer)

    def _set_model(
        self, model: LanguageModel, optimizer: Optimizer, placement: Placement | None = None
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.placement = placement or Placement(model)
        self.parameters = list(model.parameters())
        self.sums: GradientSums | None = None
        if self.config.world_invariant:
            self.sums = GradientSums(self.placement.averaged)
        self.hidden: Forward = model.hidden

    def shard(self) -> None:
        """Spread the model over the processes of `world`, before anything of its state is loaded.

        All processes must call this together.
        """
        from holo_cli.training.sharding import ShardedModel  # FSDP takes a while to import

        sharded = ShardedModel(self.model, self.config, self.dtype, self.world)
        model = sharded.model
        self._set_model(
            model, type(self.optimizer)(model, self.config, self.optimizer.fast_bf16), sharded
        )

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters)

    # -- the whole run ----------------------------------------------------------------------------

    def run(self) -> str:
        """Returns what ended it: steps, target-loss, time-limit, stop-at or signal. All that is
        saved is on the disk then."""
        self.model.train()
        self._compile()
        try:
            ended = self._steps()
            if self.background is not None:
                self.background.finish()
        except HoloError:
            if self.background is not None:  # a good checkpoint may be under way
                with contextlib.suppress(HoloError):
                    self.background.finish()
            raise
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise out_of_memory(self.progress, self.config, self.context) from error
            raise
        return ended

    def _steps(self) -> str:
        while self.progress.step < self.config.steps:
            if not self.step():
                self._save_last()
                return self.stop.reason
            ended = self._after_step()
            if ended:
                return ended
        self._save_last()
        return "steps"

    def _after_step(self) -> str:
        """Log, evaluate, save; returns the reason to end the run, or ""."""
        progress, config = self.progress, self.config
        step = progress.step
        ended = ""
        if self.background is not None:
            self.background.poll()
        # clocks differ between processes, and all must end at the same step
        if config.time_limit and self.world.any(progress.train_seconds >= config.time_limit):
            ended = "time-limit"
        if step % config.log_every == 0:
            reports.train_line(self)
        last = step == config.steps
        if step % config.eval_every == 0 or last or ended:
            self.evaluate()
            if config.target_loss and (progress.val_loss or math.inf) <= config.target_loss:
                ended = "target-loss"
            if not last:  # the last step is saved once, by `run`
                self._save_last()
        elif config.save_every and step % config.save_every == 0:
            self._save_last()
        if not self.sampled and progress.train_seconds >= reports.EARLY_SAMPLE:
            reports.early_sample(self)
        if not ended and step == self.stop_at and not last:
            self._save_last()
            ended = "stop-at"
        return ended

    # -- the model that is trained ----------------------------------------------------------------

    def _compile(self) -> None:
        if not self.config.compile or self.placement.spread:  # then its blocks are compiled
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
            reports.stage(self, {})
        due = layers_due(self.stages, progress.step, self.config.steps)
        if progress.micro or due <= model.config.layers:
            return
        spread = self.placement.spread
        model, optimizer = self.placement.whole_state(self.optimizer)
        before = self._sample_loss(model)
        self._set_model(*grow(model, optimizer, due, self.config.weights_seed))
        after = self._sample_loss(self.model)
        figures = memory_figures(self.model, self.config, self.dtype)
        if spread:
            state = self.optimizer.state_tensors()
            self.shard()
            self.optimizer.load_state_tensors(state)
        self._compile()
        losses = {} if self.data is None else {"loss_before": before, "loss_after": after}
        reports.stage(self, losses | figures)

    def _sample_loss(self, model: LanguageModel) -> float:
        if self.data is None or not self.world.is_main:
            return 0.0
        return sample_loss(model, self.data, self.dtype)

    # -- one step ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """One update; False if a request to stop came first (the state is then mid-step).

        Includes growth, so that callers that step without `run` train the same.
        """
        progress, config = self.progress, self.config
        self._grow()
        while progress.micro < config.grad_accum:
            # where a save in the background failed, the run ends like one that is stopped: the
            # next save raises what went wrong
            failed = self.background is not None and self.background.failed
            if self.world.any(failed or bool(self.stop)):
                self.stop.ask("signal")
                return False
            started = time.perf_counter()
            self._micro_step()
            progress.train_seconds += time.perf_counter() - started
        started = time.perf_counter()
        self._read_figures()
        loss = self._all_reduce()
        self.scale.unscale(self.parameters)
        if config.world_invariant:
            norm = clip_exactly(self.parameters, config.clip)
        else:
            norm = clip_grad_norm(self.parameters, config.clip).item()
        left_out = math.isfinite(loss) and self.scale.overflowed(math.isfinite(norm))
        if not (left_out or (math.isfinite(norm) and math.isfinite(loss))):
            raise divergence_error(progress, config, loss, norm)
        self.optimizer.set_lr(lr_multiplier(progress.step, config))
        if not left_out:
            self.optimizer.step()
        self._drop_gradients()
        progress.train_seconds += time.perf_counter() - started
        progress.step += 1
        progress.micro = 0
        progress.step_loss = 0.0
        progress.logged_loss += loss
        progress.logged_steps += 1
        self.norm = norm
        return True

    def _all_reduce(self) -> float:
        """All-reduce the accumulated gradients and loss; returns the loss."""
        if self.sums is not None:
            self.sums.to_gradients(self.world)
        elif self.world.size > 1:
            parameters = self.placement.averaged
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
        invariant = config.world_invariant
        x, y = self.batches.take(config.batch_size, world.rank, world.size, together=invariant)
        if invariant:
            torch.manual_seed(batch_seed(config.seed, begin // config.batch_size + world.rank))
        context = context_at(progress.step, self.context, config)
        if context != self.context:
            x, y = shorten(x, y, context)
        # a process's gradients are averaged with the others', or of whole batches added to them
        averaged = 1 if invariant else world.size
        # a batch within a long question has no target, and then no share of the loss
        scored = int((y != IGNORE).sum())
        parts = self._in_step[1] / (scored * averaged) if scored else math.inf
        shares = config.grad_accum * (world.size if invariant else 1)
        x, y = x.to(self.model.device), y.to(self.model.device)
        with autocast(self.model.device, self.dtype):
            hidden, aux = self.hidden(x)
        if config.unlikelihood:
            end = None if self.data is None else self.data.tokenizer.end
            penalty = Unlikelihood(x, y, config.unlikelihood, config.unlikelihood_span, end)
            objective, loss, repeats = penalized_loss(
                hidden, self.model.head, y, penalty, self.dtype
            )
            self._figures.append(("unlikelihood", repeats, world.size / averaged / parts))
        else:
            objective = loss = cross_entropy(hidden, self.model.head, y, self.dtype)
        total: Tensor = objective / parts
        for name, extra in aux.items():
            total = total + extra / shares
            self._figures.append((name, extra.detach(), 1 / config.grad_accum))
        if self.sums is not None:
            self.placement.before_backward()
        (total * self.scale.factor if self.scale.active else total).backward()
        if self.sums is not None:
            self.sums.add()
        self._figures.append(("", loss.detach(), world.size / averaged / parts))
        progress.micro += 1
        progress.tokens += self.batches.scored(begin, rows)
        progress.windows = self.batches.position

    def _read_figures(self) -> None:
        """Add losses to their sums. Once a step: reading one waits for the device."""
        values = read_scalars([value for _, value, _ in self._figures])
        progress = self.progress
        for (name, _, share), value in zip(self._figures, values, strict=True):
            if name:
                progress.aux[name] = progress.aux.get(name, 0.0) + value * share
            else:
                progress.step_loss += value * share
        self._figures = []

    # -- events and checkpoints -------------------------------------------------------------------

    def evaluate(self) -> None:
        """Loss on the whole validation set, a sample text, and a checkpoint if it is the best."""
        model = self.placement.whole()
        # only the first process evaluates; the others wait for the result
        if model is not None and self.world.is_main:
            reports.evaluation(self, model)
        self.progress.val_loss = self.world.broadcast(self.progress.val_loss)
        self.placement.take_buffers(model)

    def _save_last(self) -> None:
        """Write everything: from the first process, or of a sharded model from each its part."""
        self._read_figures()
        if self.progress.micro and self.sums is not None:
            # sums in float64 are not saved: the step is made again, whole
            shape = self.config.batch_size * self.world.size, self.config.grad_accum
            start_over(self.progress, shape, self.batches)
            self.batches.position = self.progress.windows
            self._drop_gradients()
        elif self.progress.micro:
            self._all_reduce()
        mean = self.world.mean
        self.progress.aux = {name: mean(v) for name, v in sorted(self.progress.aux.items())}
        self.random = {name: self.world.all_gather(t) for name, t in rng_states().items()}
        tensors = model_tensors(self.model)
        tensors |= training_tensors(self.model, self.optimizer, self.random)
        if self.background is not None:
            self.background.start(tensors)
            return
        if self.world.is_main:
            self.save("last", self, tensors)
        self.world.barrier()
        self.saved = self.progress.step

    def _drop_gradients(self) -> None:
        for p in self.parameters:
            p.grad = None
        if self.sums is not None:
            self.sums.drop()
            self.placement.after_step()

    def warn(self, message: str) -> None:
        self.events({"event": "warning", "step": self.progress.step, "message": message})
