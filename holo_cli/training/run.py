"""A whole run: from a resolved config, or a checkpoint, to trained checkpoints on the disk.

`train` and `resume` are what the commands of the same names call. They put the parts together
(data, model, optimizer, files, log, lock, signals) and leave the training itself to `loop.Loop`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from holo_cli import registry
from holo_cli.checkpoint import (
    DataInfo,
    Header,
    Losses,
    RunLock,
    find_checkpoint,
    known_runs,
    load_training,
    model_tensors,
    run_path,
    save,
)
from holo_cli.checkpoint.find import ROOT as CHECKPOINTS
from holo_cli.config import Resolved
from holo_cli.data.batches import TrainBatches
from holo_cli.data.dataset import PreparedData
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.errors import CheckpointError, DataError, Stopped, UsageError
from holo_cli.models.base import LanguageModel
from holo_cli.training.distributed import World, processes
from holo_cli.training.loop import Event, Loop
from holo_cli.training.memory import available_bytes, memory_parts, peak_rss_bytes
from holo_cli.training.metrics import MetricsLog
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import pick_device, pick_dtype
from holo_cli.training.state import Progress, restore_training, training_tensors
from holo_cli.training.stopping import StopRequest

RUNS = Path("runs")
Events = Callable[[Event], None]
# writes sample text with a model under training: (model, tokenizer, header so far, tokens) -> text
Sampler = Callable[[LanguageModel, Tokenizer, Header, int], str]


def train(
    resolved: Resolved,
    *,
    events: Events,
    run: str | None = None,
    stop_at: int | None = None,
    force: bool = False,
    sampler: Sampler | None = None,
    stop: StopRequest | None = None,
) -> Event:
    """Train a new run; returns the final event (`event="done"`).

    `run` names it (default: model-dataset, numbered if that exists). A named run that exists is
    refused unless `force`. `stop_at` stops after that step with everything saved. Raises Stopped
    when a signal or `stop_at` ended it, after saving; DataError, UsageError and TrainingError
    for what cannot be trained.
    """
    data = _open_data(resolved.data.path, resolved.data.verify)
    name = _run_name(resolved.model_name, data, run, force)
    resolved = resolved.replace(
        {"model.vocab_size": data.tokenizer.vocab_size}, source="the tokenizer"
    )
    _check_fits(resolved, data)
    torch.manual_seed(resolved.training.seed)
    device = pick_device(resolved.training.device)
    # what `auto` found is part of the run: a resume must compute in the same format
    found = str(pick_dtype(resolved.training.dtype, device)).removeprefix("torch.")
    if resolved.training.dtype == "auto":
        resolved = resolved.replace({"training.dtype": found}, source=f"found on this {device}")
    model = registry.build_model(resolved.model_name, resolved.model).to(device)
    return _Run(resolved, data, name, model, Progress(), events, sampler).go(
        tensors=None, stop=stop, stop_at=stop_at
    )


def resume(
    name: str | Path | None,
    *,
    events: Events,
    steps: int | None = None,
    stop_at: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    sampler: Sampler | None = None,
    stop: StopRequest | None = None,
) -> Event:
    """Go on with a run from its last checkpoint; returns the final event.

    `name` is a run, a path, or None for the newest run. `steps` extends (or shortens) the
    schedule; `overrides` changes other dotted config keys. Raises like `train`.
    """
    path = find_checkpoint(name, CHECKPOINTS, prefer=("last", "best"))
    header, tensors = load_training(path)
    if header.kind != "last":
        raise CheckpointError(
            f"{path} holds weights only, no training state.",
            next_step="Resume from the run's _last file, or train a new run.",
        )
    resolved = Resolved.from_dict(header.model_dump())
    changes = dict(overrides or {}) | ({"training.steps": steps} if steps is not None else {})
    if changes:
        resolved = resolved.replace(changes)
    data = _open_data(resolved.data.path, resolved.data.verify)
    if data.fingerprint != header.data.fingerprint:
        raise DataError(
            f"{data.path} is not what run '{header.run}' was trained on: it was prepared anew.",
            next_step=f"Start a new run: holo train --model {header.model} --data {data.path}",
        )
    progress = Progress.from_dict(header.state)
    if progress.step >= resolved.training.steps:
        raise UsageError(
            f"Run '{header.run}' is done: {progress.step} of {resolved.training.steps} steps.",
            next_step=f"Extend it: holo resume {header.run} --steps {progress.step * 2}",
        )
    device = pick_device(resolved.training.device)
    model = registry.build_model(resolved.model_name, resolved.model).to(device)
    with torch.no_grad():
        for key, target in model.state_dict().items():
            target.copy_(tensors[f"model/{key}"])
    return _Run(resolved, data, header.run, model, progress, events, sampler).go(
        tensors=tensors, stop=stop, stop_at=stop_at
    )


def _check_fits(resolved: Resolved, data: PreparedData) -> None:
    """What would stop training at its first step, said before anything is written."""
    context, config = resolved.model.context, resolved.training
    TrainBatches(data.split("train"), context, config.seed)  # raises if the text is too short
    if config.ramp_context and context % config.ramp_context:
        raise UsageError(
            f"training.ramp_context ({config.ramp_context}) must divide model.context ({context}).",
            next_step=f"Use {context // 2}, say, or 0 for no ramp.",
        )


def _open_data(path: str, verify: bool) -> PreparedData:
    if not path:
        raise UsageError("No data was named.", next_step="Add --data NAME, or `holo prepare`.")
    return PreparedData.open(path, verify)


def _run_name(model: str, data: PreparedData, asked: str | None, force: bool) -> str:
    """The asked name, or MODEL-DATASET with the first free number."""
    existing = known_runs(CHECKPOINTS)
    if asked is not None:
        if asked in existing and not force:
            raise UsageError(
                f"A run '{asked}' exists already.",
                next_step=f"Go on with it (holo resume {asked}), choose another --run, or replace "
                "it with --force.",
            )
        return asked
    base = name = f"{model}-{data.name}"
    number = 1
    while name in existing and not force:
        number += 1
        name = f"{base}-{number}"
    return name


class _Run:
    """One training process: the parts of a run and how they are saved."""

    def __init__(
        self,
        resolved: Resolved,
        data: PreparedData,
        name: str,
        model: LanguageModel,
        progress: Progress,
        events: Events,
        sampler: Sampler | None,
    ) -> None:
        self.resolved, self.data, self.name = resolved, data, name
        self.model, self.progress = model, progress
        self.tell, self.sampler = events, sampler
        self.config = resolved.training
        self.dtype = pick_dtype(self.config.dtype, model.device)
        fast = self.dtype == torch.bfloat16
        self.optimizer = Optimizer(model, self.config, fast_bf16=fast)
        self.log: MetricsLog | None = None
        self.replaces = progress.step == 0  # the first save ends an older run of this name
        model.grad_checkpoint = self.config.grad_checkpoint

    def go(
        self,
        *,
        tensors: Mapping[str, torch.Tensor] | None,
        stop: StopRequest | None,
        stop_at: int | None,
    ) -> Event:
        stop = StopRequest() if stop is None else stop
        with ExitStack() as stack:
            world = stack.enter_context(processes(self.model.device))
            if world.is_main:
                stack.enter_context(RunLock(CHECKPOINTS, self.name))
                self.log = MetricsLog(RUNS / self.name, self.progress.step)
                stack.callback(self.log.close)
            stack.enter_context(stop.on_signals())
            if world.size > 1 and tensors is None:
                torch.manual_seed(self.config.seed + world.rank)  # dropout differs by process
            loop = Loop(
                self.model, self.optimizer, self.data, self.config, self.dtype, self.progress,
                events=self._event, save=self._save, sample=self._sample if self.sampler else None,
                stop=stop, world=world, stop_at=stop_at,
            )  # fmt: skip
            self.world = world
            self._start(loop)
            if self.config.compile:
                self._compile(loop)
            if tensors is not None:
                restore_training(self.model, self.optimizer, tensors)
            reason = loop.run()
            done = self._done(reason)
            self._event(done)
        if reason in ("signal", "stop-at"):
            raise Stopped(
                f"Stopped at step {self.progress.step} of {self.config.steps}; all is saved.",
                next_step=f"Go on with: holo resume {self.name}",
            )
        return done

    # -- events -----------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        if self.world.is_main:
            if self.log is not None:
                self.log.write(event)
            self.tell(event)

    world = World()

    def _start(self, loop: Loop) -> None:
        parts = memory_parts(self.model, self.config, self.dtype)
        needed, free = sum(parts.values()), available_bytes(self.model.device)
        described = self.model.describe()
        self._event(
            {
                "event": "start",
                "run": self.name,
                "model": self.resolved.model_name,
                "preset": self.resolved.preset,
                "recipe": self.resolved.recipe,
                "data": self.data.name,
                "parameters": described.parameters,
                "step": self.progress.step,
                "steps": self.config.steps,
                "tokens_per_step": self.config.batch_size
                * self.config.grad_accum
                * self.model.config.context
                * self.world.size,
                "epochs": round(
                    self.config.steps
                    * self.config.batch_size
                    * self.config.grad_accum
                    * self.world.size
                    / loop.batches.per_epoch,
                    2,
                ),
                "device": str(self.model.device),
                "dtype": str(self.dtype).removeprefix("torch."),
                "memory_bytes": needed,
                "available_bytes": free,
            }
        )
        if free is not None and needed > 0.9 * free:
            self._warn(
                f"This run needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. "
                "Try a smaller --batch-size with --grad-accum, or --grad-checkpoint."
            )

    def _warn(self, message: str) -> None:
        self._event({"event": "warning", "step": self.progress.step, "message": message})

    def _done(self, reason: str) -> Event:
        progress = self.progress
        best = run_path(CHECKPOINTS, self.name, "best")
        described = self.model.describe()
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
            "parameters": described.parameters,
            "stopped_by": reason,
        }

    # -- files ------------------------------------------------------------------------------------

    def _header(self, kind: str, progress: Progress) -> Header:
        config = self.resolved.to_dict()
        return Header(
            model=self.resolved.model_name,
            config=config["config"],
            preset=config["preset"],
            recipe=config["recipe"],
            provenance=config["provenance"],
            tokenizer=self.data.tokenizer.to_dict(),
            step=progress.step,
            tokens=progress.tokens,
            losses=Losses(
                train=progress.train_loss,
                val=progress.val_loss,
                bpb=progress.bpb,
                best_val=progress.best_val,
            ),
            data=DataInfo(
                name=self.data.name,
                path=self.data.path.as_posix(),
                fingerprint=self.data.fingerprint,
                documents=self.data.document_count("train"),
                languages=self.data.languages,
                markers=self.data.has_markers,
            ),
            run=self.name,
            kind=kind,  # type: ignore[arg-type]
            history=progress.history,
            state=progress.to_dict() if kind == "last" else {},
        )

    def _save(self, kind: str, progress: Progress) -> None:
        tensors = model_tensors(self.model)
        if kind == "last":
            tensors |= training_tensors(self.model, self.optimizer)
        path = run_path(CHECKPOINTS, self.name, kind)  # type: ignore[arg-type]
        save(path, self._header(kind, progress), tensors)
        if self.replaces:
            other = run_path(CHECKPOINTS, self.name, "last" if kind == "best" else "best")
            other.unlink(missing_ok=True)
            self.replaces = False
        self._event({"event": "save", "path": path.as_posix(), "step": progress.step, "kind": kind})

    def _sample(self, model: LanguageModel) -> str:
        assert self.sampler is not None
        header = self._header("weights", self.progress)
        return self.sampler(model, self.data.tokenizer, header, self.config.sample_tokens)

    def _compile(self, loop: Loop) -> None:
        """Compile the forward pass where this machine can; where it cannot, say so and go on."""
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        try:
            probe = torch.compile(lambda x: torch.sin(x) + 1)
            probe(torch.zeros(8, device=self.model.device))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loop.hidden = torch.compile(self.model.hidden)
        except (TorchDynamoException, InductorError, RuntimeError, ImportError) as error:
            reason = str(error).partition("\n")[0]
            self._warn(f"torch.compile does not work here ({reason}); going on without it.")
