"""A run in this process: its trainer, events, log, lock and checkpoints.

`run.py` decides what is trained, from which state and under which name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from holo_cli.checkpoint import Header, Origin, RunLock, run_path
from holo_cli.checkpoint.mirror import Mirror
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.checkpoint.stored import StoredTensors
from holo_cli.config.resolve import Resolved
from holo_cli.data.combined import CombinedData
from holo_cli.data.dataset import PreparedData
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.weighted import WeightedBatches
from holo_cli.errors import Stopped
from holo_cli.layers.whole_batch import each_batch_alone
from holo_cli.models.base import LanguageModel
from holo_cli.names import quoted
from holo_cli.paths import CHECKPOINTS, RUNS
from holo_cli.training.build import build_trainer, train_batches
from holo_cli.training.capacity import check_measured
from holo_cli.training.checkpointing import CheckpointWriter, Kind
from holo_cli.training.distributed import World, process_group, processes
from holo_cli.training.failures import is_process_lost, process_lost
from holo_cli.training.growth import first_step
from holo_cli.training.memory_estimate import (
    at_full_depth,
    available_bytes,
    memory_parts,
    memory_warning,
    peak_rss_bytes,
)
from holo_cli.training.metrics import MetricsLog
from holo_cli.training.state import Progress, restore_training_state
from holo_cli.training.stopping import StopRequest
from holo_cli.training.trackers import Tracker
from holo_cli.training.trainer import Event, Events, Trainer

# generates sample text with the model in training: (model, tokenizer, header, tokens) -> text
Sampler = Callable[[LanguageModel, Tokenizer, Header, int], str]


class TrainingRun:
    """A run in this process, which may be one of several processes."""

    world = World()
    expected_seconds: float | None = None  # an estimate made before the run, for its first event

    def __init__(
        self,
        resolved: Resolved,
        data: PreparedData,
        name: str,
        model: LanguageModel,
        progress: Progress,
        events: Events,
        sampler: Sampler | None,
        origins: Sequence[Origin] = (),
    ) -> None:
        """`origins`: the lineage of the weights, oldest first; empty for a run from scratch."""
        self.resolved, self.data, self.name = resolved, data, name
        self.progress, self.emit, self.sampler = progress, events, sampler
        self.config = resolved.training
        self.log: MetricsLog | None = None
        self.mirror: Mirror | None = None
        self.origins = origins
        self._notes: list[str] = []
        self.writer = CheckpointWriter(
            resolved, data, name, replaces=progress.step == 0, origins=origins
        )
        self.trainer = build_trainer(
            resolved,
            model,
            train_batches(resolved, data),
            data=data,
            progress=progress,
            events=self._event,
            save=self._save,
            sample=self._sample if sampler else None,
        )

    def run(
        self,
        *,
        tensors: Mapping[str, torch.Tensor] | None,
        stop: StopRequest | None,
        stop_at: int | None,
        force_memory: bool = False,
    ) -> Event:
        """Train, from the state in `tensors` or from the start; returns the final event.

        Raises UsageError, unless `force_memory`, for more memory than the device has; Stopped where
        a signal or `stop_at` ended it, after saving; TrainingError where another process of the run
        was lost.
        """
        trainer, progress = self.trainer, self.progress
        trainer.stop_at = stop_at
        if stop is not None:
            trainer.stop = stop
        try:
            reason, done = self._run(tensors, force_memory)
        except RuntimeError as error:
            if processes() > 1 and is_process_lost(error):
                raise process_lost(self.name, processes(), progress, trainer.saved) from error
            raise
        if reason in ("signal", "stop-at"):
            raise Stopped(
                f"Stopped at step {progress.step} of {self.config.steps}; everything is saved.",
                next_step=f"Resume with: holo resume {quoted(self.name)}",
            )
        return done

    def _run(
        self, tensors: Mapping[str, torch.Tensor] | None, force_memory: bool
    ) -> tuple[str, Event]:
        """What ended it, and the final event."""
        trainer, progress = self.trainer, self.progress
        with ExitStack() as stack:
            self.world = trainer.world = stack.enter_context(process_group(trainer.model.device))
            # Until here there is nothing to save, and a signal ends the process at once: measuring
            # a large model takes a while.
            needed = memory_parts(trainer.model, self.config, trainer.dtype)
            if self.config.shard and self.world.size > 1:
                self._shard()
            needed, whole = trainer.placement.share(needed), needed
            check_measured(sum(needed.values()), trainer.model.device, force=force_memory)
            # before the rest: it is left last, and torchrun ends the processes of a lost one by
            # SIGTERM, which must not come before this one's message
            stack.enter_context(trainer.stop.on_signals())
            if self.world.is_main:
                stack.enter_context(RunLock(CHECKPOINTS, self.name))
                layers = trainer.model.config.layers
                tracker = self._tracker()
                self.log = MetricsLog(RUNS / self.name, progress.step, layers, tracker)
                stack.callback(self.log.close)
                if self.config.mirror:
                    self.mirror = Mirror(self.config.mirror, CHECKPOINTS, self.name, trainer.warn)
                    stack.callback(self.mirror.finish)
            if self.world.size > 1 and tensors is None:
                torch.manual_seed(self.config.seed + self.world.rank)  # dropout differs by process
            self._start(needed, whole)
            if caution := trainer.model.config.caution():
                trainer.warn(caution)
            if self.config.shard and self.world.size == 1:
                trainer.warn("training.shard has no effect in one process: start it with torchrun.")
            for note in self._notes:
                trainer.warn(note)
            if tensors is not None:
                restore_training_state(trainer.model, trainer.optimizer, tensors, self.world.rank)
                if isinstance(tensors, StoredTensors):
                    tensors.close()
            elif self.origins and self.progress.step == 0:
                trainer.evaluate()  # the loss that the new run starts from
            with each_batch_alone(self.config.world_invariant):
                reason = trainer.run()
            done = self._done(reason)
            self._event(done)
        return reason, done

    def _shard(self) -> None:
        from holo_cli.training.sharded_saving import BackgroundSaves, PendingSave

        trainer, progress = self.trainer, self.progress
        trainer.shard()

        def pending() -> PendingSave:
            path = run_path(CHECKPOINTS, self.name, "last")
            header = self.writer.header("last", progress)
            return PendingSave(path, header, trainer.placement.shared, progress.step)

        def on_saved(done: PendingSave) -> None:
            trainer.saved = done.step
            if self.world.is_main:
                self.writer.end_older("last")
                self._saved("last", done.path, done.step)

        trainer.background = BackgroundSaves(pending, on_saved)

    def _tracker(self) -> Tracker | None:
        config = self.config
        if config.tracker == "none":
            return None
        return Tracker(
            config.tracker,
            config.tracker_project,
            self.name,
            RUNS / self.name,
            self.resolved.values() | {"model": self.resolved.model_name, "data": self.data.name},
            resumed=self.progress.step > 0,
            warn=self.trainer.warn,
        )

    def note(self, message: str) -> None:
        """A warning that is given once the run has started."""
        self._notes.append(message)

    # -- events -----------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        if self.world.is_main:
            if self.log is not None:
                self.log.write(event)
            self.emit(event)

    def _start(self, parts: dict[str, int], whole: dict[str, int]) -> None:
        """`parts` of this process's memory, and those of the whole model."""
        trainer, config = self.trainer, self.config
        needed, free = sum(parts.values()), available_bytes(trainer.model.device)
        growth: Event = {}
        if trainer.stages:
            full = shapes_only(self.resolved.model_name, self.resolved.model)
            growth = {
                "layers": trainer.model.config.layers,
                "stages": [
                    {"step": first_step(stage, config.steps), "layers": stage.layers}
                    for stage in trainer.stages
                ],
                "full_memory_bytes": sum(
                    trainer.placement.share(
                        at_full_depth(whole, trainer.model, full, config)
                    ).values()
                ),
            }
        filled, expected = trainer.batches.filled, self.expected_seconds
        windows = config.batch_size * config.grad_accum * self.world.size
        self._event(
            {
                "event": "start",
                "run": self.name,
                "model": self.resolved.model_name,
                "preset": self.resolved.preset,
                "recipe": self.resolved.recipe,
                "data": self.data.name,
                "parameters": trainer.parameter_count,
                "step": self.progress.step,
                "steps": config.steps,
                "tokens_per_step": windows * trainer.context,
                "epochs": round(config.steps * windows / trainer.batches.per_epoch, 2),
                "device": str(trainer.model.device),
                "dtype": str(trainer.dtype).removeprefix("torch."),
                "origin": self.origins[-1].model_dump() if self.origins else None,
                "memory_bytes": needed,
                "available_bytes": free,
            }
            | ({"expected_seconds": round(expected, 1)} if expected is not None else {})
            | growth
            | self._sets(config.steps * windows)
            | ({"filled": round(filled, 4)} if filled < 1 else {})
        )
        warning = memory_warning(growth.get("full_memory_bytes", needed), free)
        if warning:
            trainer.warn(warning)
        if filled < 0.5:
            trainer.warn(
                f"Documents fill {filled:.0%} of the rows; the rest of the computation is wasted. "
                "Try a smaller --context, or data.document_mask=false."
            )

    def _sets(self, windows: int) -> Event:
        """Weight of each of several sets, and how often `windows` windows read it."""
        data, batches = self.data, self.trainer.batches
        if not (isinstance(data, CombinedData) and isinstance(batches, WeightedBatches)):
            return {}
        rows = zip(data.labels, data.weights, batches.epochs(windows), strict=True)
        return {
            "sets": [
                {"name": name, "weight": round(weight, 6), "epochs": round(epochs, 2)}
                for name, weight, epochs in rows
            ]
        }

    def _done(self, reason: str) -> Event:
        progress = self.progress
        best = run_path(CHECKPOINTS, self.name, "best")
        seconds = max(progress.train_seconds, 1e-9)
        return {
            "event": "done",
            "run": self.name,
            "best": best.as_posix() if best.exists() else None,
            "last": run_path(CHECKPOINTS, self.name, "last").as_posix(),
            "val_loss": progress.val_loss,
            "best_val_loss": progress.best_val,
            "bpb": progress.bpb,
            "step": progress.step,
            "steps": progress.step,
            "tokens": progress.tokens,
            "train_seconds": round(progress.train_seconds, 3),
            "eval_seconds": round(progress.eval_seconds, 3),
            "tokens_per_second": round(progress.tokens / seconds, 1),
            "peak_rss_bytes": peak_rss_bytes(),
            "parameters": self.trainer.parameter_count,
            "only_continues": not self.data.has_chat,
            "stopped_by": reason,
        }

    # -- called by the trainer --------------------------------------------------------------------

    def _save(self, kind: Kind, trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
        path = self.writer.save(kind, trainer.progress, tensors)
        self._saved(kind, path, self.progress.step)

    def _saved(self, kind: Kind, path: Path, step: int) -> None:
        self._event({"event": "save", "path": path.as_posix(), "step": step, "kind": kind})
        if self.mirror is not None:
            self.mirror.add(path)

    def _sample(self, model: LanguageModel) -> str:
        assert self.sampler is not None
        header = self.writer.header("weights", self.progress)
        return self.sampler(model, self.data.tokenizer, header, self.config.sample_tokens)
