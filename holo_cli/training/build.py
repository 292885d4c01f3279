"""Builds a trainer from a resolved config: model, batches, optimizer, number format.

Used by every caller that trains: a run, its resume, the calibration of step times, and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from holo_cli import registry
from holo_cli.config.model_schema import ModelConfig, Stage
from holo_cli.config.resolve import Resolved
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import TrainBatches
from holo_cli.data.combined import CombinedData
from holo_cli.data.dataset import PreparedData
from holo_cli.data.weighted import WeightedBatches
from holo_cli.models.base import LanguageModel
from holo_cli.training.capacity import check_run
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import pick_device, pick_dtype
from holo_cli.training.state import Progress
from holo_cli.training.trainer import Event, Events, Saver, Trainer


def initial_model(name: str, shape: ModelConfig, training: TrainingConfig) -> LanguageModel:
    """A model with the initial weights of `training.init_seed`, or else of `training.seed`.

    Either way later draws (dropout) depend on `training.seed`.
    """
    torch.manual_seed(training.weights_seed)
    model = registry.build_model(name, shape)
    if training.init_seed is not None:
        torch.manual_seed(training.seed)
    return model


def new_model(resolved: Resolved, *, force: bool = False) -> LanguageModel:
    """The untrained model of a new run, on its device: a growing one at its first depth.

    Raises UsageError, unless `force`, for a run that the device's memory cannot hold.
    """
    check_run(resolved, force=force)
    stages = resolved.model.stages()
    shape = resolved.model.at_depth(stages[0].layers) if stages else resolved.model
    model = initial_model(resolved.model_name, shape, resolved.training)
    return model.to(pick_device(resolved.training.device))


def train_batches(resolved: Resolved, data: PreparedData) -> TrainBatches:
    """The training rows of a run, from the first one on. Raises as `TrainBatches.of`."""

    def of(data: PreparedData, number: int | None = None) -> TrainBatches:
        return TrainBatches.of(
            data,
            resolved.model.context,
            resolved.training.seed,
            balance=resolved.data.balance,
            document_mask=resolved.data.document_mask,
            number=number,
        )

    if isinstance(data, CombinedData):
        return WeightedBatches([of(part, n) for n, part in enumerate(data.parts)], data.weights)
    return of(data)


def _no_events(event: Event) -> None:
    pass


def _no_save(kind: str, trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
    pass


def build_trainer(
    resolved: Resolved,
    model: LanguageModel,
    batches: TrainBatches,
    *,
    data: PreparedData | None = None,
    progress: Progress | None = None,
    events: Events = _no_events,
    save: Saver = _no_save,
    sample: Callable[[LanguageModel], str] | None = None,
    stages: Sequence[Stage] | None = None,
    optimizer: type[Optimizer] = Optimizer,
) -> Trainer:
    """A trainer for `model`, which is on its device; puts the model in training mode.

    The defaults are those of a measurement: no evaluations, events or checkpoints. `stages` None:
    those of the config; the other arguments are those of `Trainer`.
    """
    config = resolved.training
    dtype = pick_dtype(config.dtype, model.device)
    model.grad_checkpoint = config.grad_checkpoint
    return Trainer(
        model.train(),
        optimizer(model, config, fast_bf16=dtype == torch.bfloat16),
        batches,
        config,
        dtype,
        Progress() if progress is None else progress,
        data=data,
        events=events,
        save=save,
        sample=sample,
        stages=resolved.model.stages() if stages is None else stages,
    )
