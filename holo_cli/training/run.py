"""A whole run: from a resolved config, or a checkpoint, to trained checkpoints on the disk.

`train` and `resume` are called by the commands of the same names. They find the data, the run's
name and its initial state, and reject what cannot be trained; `training_run.py` trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.checkpoint import Header, find_checkpoint, known_runs, run_path
from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.checkpoint.rebuild import check_finite, open_training
from holo_cli.checkpoint.tensor_bytes import not_finite
from holo_cli.checkpoint.unfinished import Unfinished, unfinished_runs
from holo_cli.config.resolve import Resolved
from holo_cli.data.combined import open_data
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import CheckpointError, DataError, UsageError
from holo_cli.models.base import LanguageModel
from holo_cli.names import quoted
from holo_cli.paths import CHECKPOINTS
from holo_cli.training.build import new_model, train_batches
from holo_cli.training.capacity import check_run
from holo_cli.training.distributed import processes
from holo_cli.training.elastic import check_group, divided, redivide, start_over, stored_processes
from holo_cli.training.precision import pick_device, pick_dtype
from holo_cli.training.start_from import Start, check_tokenizer, load_weights
from holo_cli.training.state import Progress
from holo_cli.training.stopping import StopRequest
from holo_cli.training.trainer import Event, Events
from holo_cli.training.training_run import Sampler, TrainingRun
from holo_cli.wording import counted


def train(
    resolved: Resolved,
    *,
    events: Events,
    run: str | None = None,
    stop_at: int | None = None,
    force: bool = False,
    force_memory: bool = False,
    sampler: Sampler | None = None,
    stop: StopRequest | None = None,
    start: Start | None = None,
    expected_seconds: float | None = None,
) -> Event:
    """Train a new run; returns the final event (`event="done"`).

    `run` names it (default: model-dataset, numbered if that exists). A named run that exists is
    refused unless `force`; a run larger than the memory unless `force_memory`. With `start` the
    weights are those of a checkpoint, whose tokenizer the data must have. `stop_at` stops after
    that step with everything saved. `expected_seconds`, the caller's estimate, goes into the first
    event. Raises Stopped when a signal or `stop_at` ended it, after saving; DataError, UsageError
    and TrainingError for what cannot be trained.
    """
    data = open_data(resolved.data)
    if start is not None:
        check_tokenizer(start, data)
    name = _run_name(resolved.model_name, data, run, force)
    tokenizer = data.tokenizer
    from_tokenizer = {"vocab_size": tokenizer.vocab_size} | resolved.model.from_specials(
        tokenizer.specials
    )
    if data.has_chat and "end_token" in from_tokenizer:
        # there it ends every answer, and what was said before may be matched
        from_tokenizer["end_token"] = -1
    resolved = resolved.replace(
        {f"model.{key}": value for key, value in from_tokenizer.items()}, source="the tokenizer"
    )
    check_run(resolved, force=force_memory)
    check_group(resolved.training, processes())
    _check_fits(resolved, data)
    check_stop_at(stop_at, 0, resolved.training.steps)
    device = pick_device(resolved.training.device)
    # what `auto` found is part of the run: resume must compute in the same format
    found = str(pick_dtype(resolved.training.dtype, device)).removeprefix("torch.")
    if resolved.training.dtype == "auto":
        resolved = resolved.replace({"training.dtype": found}, source=f"found on this {device}")
    model = new_model(resolved, force=True)
    if start is not None:
        load_weights(model, start, resolved)
    origins = [] if start is None else start.origins
    training = TrainingRun(resolved, data, name, model, Progress(), events, sampler, origins)
    training.expected_seconds = expected_seconds
    return training.run(tensors=None, stop=stop, stop_at=stop_at, force_memory=force_memory)


def resume(
    name: str | Path | None,
    *,
    events: Events,
    run: str | None = None,
    steps: int | None = None,
    stop_at: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    force_memory: bool = False,
    sampler: Sampler | None = None,
    stop: StopRequest | None = None,
) -> Event:
    """Resume a run from its last checkpoint; returns the final event.

    `name` is a run, a path, or None for the newest unfinished run. It continues under its own name,
    or as a copy named `run`. From a file without training state (RUN_best) it continues with a
    fresh optimizer, which a warning tells. `steps` extends (or shortens) the schedule; `overrides`
    changes other dotted config keys. Raises like `train`.
    """
    path = find_checkpoint(name, CHECKPOINTS, prefer=("last", "best"))
    if name is None:
        path = newest_unfinished(steps).path
    header, stored_tensors = open_training(path)
    name = _resumed_name(path, header, run)
    resolved = Resolved.from_dict(header.model_dump())
    changes = dict(overrides or {}) | ({"training.steps": steps} if steps is not None else {})
    if changes:
        resolved = resolved.replace(changes)
    before, now = stored_processes(header, stored_tensors), processes()
    stored = resolved
    if not changes.keys() & {"training.batch_size", "training.grad_accum"}:
        resolved = divided(resolved, header.run, before, now)
    check_group(resolved.training, now)
    check_run(resolved, force=force_memory)
    data = open_data(resolved.data)
    if not data.matches_fingerprint(header.data.fingerprint):
        names = " --data ".join(quoted(name) for name in resolved.data.sets or (data.shown,))
        raise DataError(
            f"{data.shown} is not the data of run '{header.run}': it has been prepared again.",
            next_step=f"Start a new run: holo train --model {header.model} --data {names}",
        )
    exact = header.kind == "last"
    progress = Progress.of(header) if exact else _progress_of_weights(header, stored, before)
    _check_micro(progress, stored)
    _check_end(header.run, progress.step, resolved.training.steps, asked=steps)
    check_stop_at(stop_at, progress.step, resolved.training.steps)
    device = pick_device(resolved.training.device)
    shape = header.at_depth(resolved.model)
    model = registry.build_model(resolved.model_name, shape).to(device)
    _copy_weights(model, stored_tensors, path)
    shapes, batches = (_shape(stored, before), _shape(resolved, now)), train_batches(resolved, data)
    if resolved.training.world_invariant and progress.micro:
        start_over(progress, shapes[0], batches)
    if not redivide(progress, *shapes, batches) or not progress.micro:
        stored_tensors = stored_tensors.leaving_out("grad/")
    # a process of a sharded run reads its own rows alone, and later; else the file is closed here
    spread = resolved.training.shard and now > 1
    tensors: Mapping[str, Tensor] = stored_tensors
    if not (spread and exact):
        tensors = dict(stored_tensors) if exact else {}
        stored_tensors.close()
    training = TrainingRun(resolved, data, name, model, progress, events, sampler, header.origins)
    if before != now:
        config = resolved.training
        training.note(
            f"The run was trained by {counted(before, 'process')} and continues with {now}. Each "
            f"reads {counted(config.grad_accum, 'batch')} of {counted(config.batch_size, 'row')} "
            "per step, so that a step has the same rows as before."
        )
    if not exact:
        training.note(
            f"{path.as_posix()} holds no training state: training continues from step "
            f"{progress.step} with its weights and a fresh optimizer, so the loss may rise at "
            "first."
        )
    return training.run(
        tensors=tensors if exact else None, stop=stop, stop_at=stop_at, force_memory=force_memory
    )


def _copy_weights(model: LanguageModel, tensors: Mapping[str, Tensor], path: Path) -> None:
    wrong: dict[str, int] = {}
    with torch.no_grad():
        for key, target in model.state_dict().items():
            name = MODEL_PREFIX + key
            tensor = tensors[name]
            if count := not_finite(tensor):
                wrong[name] = count
            target.copy_(tensor)
    check_finite(path, wrong)


def _shape(resolved: Resolved, world: int) -> tuple[int, int]:
    """Rows of a micro-step in all processes, and micro-steps of a step."""
    return resolved.training.batch_size * world, resolved.training.grad_accum


def _progress_of_weights(header: Header, resolved: Resolved, world: int) -> Progress:
    """Where a run was when a file without training state was written, as far as it tells."""
    config = resolved.training
    rows = header.step * config.batch_size * config.grad_accum * world
    return Progress(
        step=header.step,
        tokens=header.tokens,
        windows=max(rows, header.tokens // resolved.model.context),
        val_loss=header.losses.val,
        bpb=header.losses.bpb,
        best_val=header.losses.best_val,
        best_step=header.step,
        history=list(header.history),
        stages=[row.model_dump() for row in header.stages],
    )


def _check_micro(progress: Progress, resolved: Resolved) -> None:
    """Raises CheckpointError where more of a step is done than the step has: it would not end."""
    if progress.micro >= resolved.training.grad_accum:
        raise CheckpointError(
            f"The training state in this checkpoint has {progress.micro} forward passes of a step "
            f"of {resolved.training.grad_accum}.",
            next_step="Start a new run, or resume from another checkpoint.",
        )


def newest_unfinished(steps: int | None = None) -> Unfinished:
    """The run that `resume` without a name resumes. Raises UsageError if all are finished.

    `steps`: the length that its schedule would get."""
    found = unfinished_runs(CHECKPOINTS, steps)
    if not found:
        newest = next(iter(known_runs(CHECKPOINTS)))
        raise UsageError(
            f"Every run in {CHECKPOINTS} is finished.",
            next_step=f"Extend one with more steps: holo resume {quoted(newest)} --steps N",
        )
    return found[0]


def _check_end(run: str, step: int, steps: int, asked: int | None) -> None:
    if step < steps:
        return
    if asked is not None:
        raise UsageError(
            f"--steps {asked} is not after the step that run '{run}' has reached, {step}.",
            next_step=f"Give a larger number, such as --steps {step * 2}.",
        )
    raise UsageError(
        f"Run '{run}' is finished: {step} of {steps} steps.",
        next_step=f"Extend it: holo resume {quoted(run)} --steps {step * 2}",
    )


def check_stop_at(stop_at: int | None, step: int, steps: int) -> None:
    """Raise UsageError for a step to stop at that is not between `step` and the last one."""
    if stop_at is not None and not step < stop_at <= steps:
        raise UsageError(
            f"--stop-at {stop_at} must be after step {step} and at most {steps}, the last step.",
            next_step="Choose a step between them, or leave --stop-at out.",
        )


def _check_fits(resolved: Resolved, data: PreparedData) -> None:
    """Raise for what would stop training at its first step, before anything is written."""
    context, config = resolved.model.context, resolved.training
    train_batches(resolved, data)  # raises if the text is too short, or has nothing to balance
    if config.ramp_context and context % config.ramp_context:
        raise UsageError(
            f"training.ramp_context ({config.ramp_context}) must divide model.context ({context}).",
            next_step=f"Use {context // 2}, say, or 0 for no ramp.",
        )


def _run_name(model: str, data: PreparedData, asked: str | None, force: bool) -> str:
    """The asked name, or MODEL-DATASET with the first free number."""
    existing = known_runs(CHECKPOINTS)
    if asked is not None:
        if asked in existing and not force:
            raise UsageError(
                f"A run '{asked}' exists already.",
                next_step=f"Resume it (holo resume {quoted(asked)}), choose another --run, or "
                "replace it with --force.",
            )
        return asked
    base = name = f"{registry.short_name(model)}-{data.name}"
    number = 1
    while name in existing and not force:
        number += 1
        name = f"{base}-{number}"
    return name


def _resumed_name(path: Path, header: Header, asked: str | None) -> str:
    """The run's own name, or the asked one; never the name of another run."""
    name = header.run if asked is None else asked
    last = run_path(CHECKPOINTS, name, "last")
    best = run_path(CHECKPOINTS, name, "best")
    own = path.resolve() == (last if last.exists() else best).resolve()
    if name in known_runs(CHECKPOINTS) and not own:
        raise UsageError(
            f"{path.as_posix()} would resume as run '{name}' and overwrite the run of that name in "
            f"{CHECKPOINTS}.",
            next_step=f"Give it another name: holo resume {quoted(path.as_posix())} "
            f"--run {quoted(name)}-2",
        )
    return name
