"""The training loop: the only one, for every model.

A step is `grad_accum` micro-steps (forward, backward) and one update. The loop can be stopped
between any two micro-steps and goes on from its saved state to the same bits. Non-finite losses
and gradients are caught before they reach the weights. It talks to the outside through events
(plain dicts) and saves through `Saver`; it knows no files and no terminal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from holo_cli.data.batches import TrainBatches, shorten
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import TrainingError
from holo_cli.models.base import LanguageModel
from holo_cli.training.config import TrainingConfig
from holo_cli.training.distributed import World
from holo_cli.training.evaluate import evaluate
from holo_cli.training.loss import cross_entropy
from holo_cli.training.memory import is_out_of_memory
from holo_cli.training.optim import Optimizer, clip_grad_norm
from holo_cli.training.precision import autocast
from holo_cli.training.schedule import context_at, rate_share
from holo_cli.training.state import Progress
from holo_cli.training.stopping import StopRequest

Event = dict[str, Any]


class Saver(Protocol):
    """Writes the run's checkpoints: `best` weights, or `last` with the whole state."""

    def __call__(self, kind: str, progress: Progress) -> None: ...


class Loop:
    """Trains `model` until something says stop; `run` returns what that was."""

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        data: PreparedData,
        config: TrainingConfig,
        dtype: torch.dtype,
        progress: Progress,
        *,
        events: Callable[[Event], None],
        save: Saver,
        sample: Callable[[LanguageModel], str] | None = None,
        stop: StopRequest | None = None,
        world: World | None = None,
        stop_at: int | None = None,
    ) -> None:
        self.model, self.optimizer, self.config, self.dtype = model, optimizer, config, dtype
        self.data, self.progress = data, progress
        self.events, self.save, self.sample = events, save, sample
        self.stop = StopRequest() if stop is None else stop
        self.world = world or World()
        self.stop_at = stop_at
        self.context = model.config.context
        self.batches = TrainBatches(data.split("train"), self.context, config.seed)
        self.batches.position = progress.windows
        self.parameters = list(model.parameters())
        self.hidden = model.hidden
        self._logged_at = (progress.train_seconds, progress.tokens)

    # -- the whole run ----------------------------------------------------------------------------

    def run(self) -> str:
        """Returns what ended it: steps, target-loss, time-limit, stop-at or signal."""
        progress, config = self.progress, self.config
        self.model.train()
        try:
            while progress.step < config.steps:
                if not self.step():
                    self._save("last")
                    return self.stop.reason
                ended = self._after_step()
                if ended:
                    return ended
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise self._out_of_memory() from error
            raise
        self._save("last")
        return "steps"

    def _after_step(self) -> str:
        """Logging, evaluation, saving; returns why the run ends, or nothing."""
        progress, config = self.progress, self.config
        step = progress.step
        ended = ""
        # each process has its own clock; all must end at the same step
        if config.time_limit and self.world.any(progress.train_seconds >= config.time_limit):
            ended = "time-limit"
        if step % config.log_every == 0:
            self._log()
        last = step == config.steps
        if step % config.eval_every == 0 or last or ended:
            self._evaluate()
            if config.target_loss and (progress.val_loss or math.inf) <= config.target_loss:
                ended = "target-loss"
            if not last:  # the last step is saved once, by `run`
                self._save("last")
        elif config.save_every and step % config.save_every == 0:
            self._save("last")
        if not ended and step == self.stop_at and not last:
            self._save("last")
            ended = "stop-at"
        return ended

    # -- one step ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """One update; False if a request to stop came first (the state is then mid-step)."""
        progress, config = self.progress, self.config
        while progress.micro < config.grad_accum:
            if self.world.any(bool(self.stop)):
                self.stop.ask("signal")
                return False
            started = time.perf_counter()
            self._micro_step()
            progress.train_seconds += time.perf_counter() - started
        started = time.perf_counter()
        self.world.average([p.grad for p in self.parameters if p.grad is not None])
        norm = clip_grad_norm(self.parameters, config.clip).item()
        loss = progress.step_loss / config.grad_accum
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise self._not_finite(loss, norm)
        self.optimizer.set_rates(rate_share(progress.step, config))
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

    def _micro_step(self) -> None:
        """Forward and backward of one batch; gradients add up to the mean over the step."""
        progress, config, world = self.progress, self.config, self.world
        self.batches.skip(world.rank * config.batch_size)
        x, y = self.batches.take(config.batch_size)
        self.batches.skip((world.size - 1 - world.rank) * config.batch_size)
        context = context_at(progress.step, self.context, config)
        if context != self.context:
            x, y = shorten(x, y, context)
        x, y = x.to(self.model.device), y.to(self.model.device)
        with autocast(self.model.device, self.dtype):
            hidden, aux = self.hidden(x)
        loss = cross_entropy(hidden, self.model.head, y, self.dtype)
        total: Tensor = loss
        for name, extra in aux.items():
            total = total + extra
            progress.aux[name] = progress.aux.get(name, 0.0) + extra.item() / config.grad_accum
        (total / config.grad_accum).backward()
        progress.step_loss += loss.item()
        progress.micro += 1
        progress.tokens += x.numel() * world.size
        progress.windows = self.batches.position

    # -- what is told and kept --------------------------------------------------------------------

    def _log(self) -> None:
        progress, config = self.progress, self.config
        seconds, tokens = self._logged_at
        self._logged_at = (progress.train_seconds, progress.tokens)
        elapsed = max(progress.train_seconds - seconds, 1e-9)
        speed = (progress.tokens - tokens) / elapsed
        progress.train_loss = progress.logged_loss / progress.logged_steps
        per_step = elapsed / progress.logged_steps
        left = (config.steps - progress.step) * per_step
        if config.time_limit:
            left = min(left, config.time_limit - progress.train_seconds)
        aux = {name: value / progress.logged_steps for name, value in progress.aux.items()}
        progress.logged_loss, progress.logged_steps, progress.aux = 0.0, 0, {}
        self.events(
            {
                "event": "train",
                "step": progress.step,
                "steps": config.steps,
                "tokens": progress.tokens,
                "epoch": round(self.batches.epoch, 4),
                "loss": progress.train_loss,
                "lr": self.optimizer.peak[0] * rate_share(progress.step - 1, config),
                "grad_norm": self._norm,
                "tokens_per_second": round(speed, 1),
                "seconds": round(progress.train_seconds, 3),
                "eta_seconds": round(max(left, 0.0), 1),
            }
            | ({"aux": aux} if aux else {})
        )

    def _evaluate(self) -> None:
        progress = self.progress
        if not self.world.is_main:
            # only the first process evaluates; the others wait for what it found
            progress.val_loss = self.world.share(None)
            return
        started = time.perf_counter()
        result = evaluate(self.model, self.data, self.dtype, rows=self.config.eval_batch_size)
        if not math.isfinite(result.loss):
            raise self._not_finite(result.loss, math.nan)
        best = progress.best_val is None or result.loss < progress.best_val
        progress.val_loss, progress.bpb = result.loss, result.bpb
        if best:
            progress.best_val, progress.best_step = result.loss, progress.step
        measures = self._measures()
        text = self.sample(self.model) if self.sample and self.config.sample_tokens else ""
        self.model.train()
        seconds = time.perf_counter() - started
        progress.eval_seconds += seconds
        row = {
            "step": progress.step,
            "tokens": progress.tokens,
            "val_loss": result.loss,
            "bpb": result.bpb,
            "train_seconds": round(progress.train_seconds, 3),
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
            self._save("best")
        self.world.share(progress.val_loss)

    def _measures(self) -> dict[str, float]:
        """The model's own figures on the first validation window."""
        x = torch.from_numpy(self.data.split("val")[0][: self.context].astype("int64"))
        self.model.eval()
        with torch.inference_mode(), autocast(self.model.device, self.dtype):
            return self.model.measures(x[None].to(self.model.device))

    def _save(self, kind: str) -> None:
        if self.world.is_main:
            self.save(kind, self.progress)

    # -- what can go wrong ------------------------------------------------------------------------

    def _not_finite(self, loss: float, norm: float) -> TrainingError:
        kept = self.progress.history[-1]["step"] if self.progress.history else None
        where = (
            f"the checkpoint of step {kept} is untouched"
            if kept is not None
            else "nothing was saved yet"
        )
        return TrainingError(
            f"Training diverged at step {self.progress.step + 1}: loss {loss:.4g}, gradient norm "
            f"{norm:.4g}; {where}.",
            next_step=f"Try --lr {self.config.lr / 3:.2g}, a longer warm-up "
            "(--set training.warmup=200), or --dtype float32.",
        )

    def _out_of_memory(self) -> TrainingError:
        config = self.config
        smaller, more = max(1, config.batch_size // 2), config.grad_accum * 2
        return TrainingError(
            f"Out of memory at step {self.progress.step + 1} with batches of {config.batch_size} "
            f"x {self.context} tokens.",
            next_step=f"Try --batch-size {smaller} --grad-accum {more} (the same step in smaller "
            f"pieces), --grad-checkpoint, or --context {self.context // 2}.",
        )
