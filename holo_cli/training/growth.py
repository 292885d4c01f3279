"""Developmental growth: the depth of each step, and the change to the next depth.

A model whose config names stages starts with the blocks of the first and gets more as the schedule
advances. The trainer knows growth only through the contract (`ModelConfig.stages`,
`LanguageModel.grown`). A growth draws from its own generator state, a function of seed and depth
alone: all processes grow the same model, the dropout masks after it do not change, and a run
stopped just before or after a growth resumes to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from holo_cli.config.model_schema import Stage
from holo_cli.data.batches import val_batches
from holo_cli.data.dataset import PreparedData
from holo_cli.models.base import LanguageModel
from holo_cli.training.loss import cross_entropy
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import autocast

SAMPLE_ROWS = 8  # validation windows on which the loss is taken just before and after a growth
_APART = 1_000_003  # keeps the seeds of one run's growths off those of runs with near-by seeds


def first_step(stage: Stage, steps: int) -> int:
    """Steps that lie before a stage in a schedule of `steps`: its share, rounded half up."""
    return int(stage.at * steps + 0.5)


def stage_at(stages: Sequence[Stage], step: int, steps: int) -> int:
    """The number, from 0, of the stage that step 0 .. steps - 1 belongs to.

    Stages that a short schedule puts on one step are passed through at once, to the deepest.
    """
    return max(i for i, stage in enumerate(stages) if i == 0 or first_step(stage, steps) <= step)


def layers_due(stages: Sequence[Stage], step: int, steps: int) -> int:
    """Blocks that a step is made with; 0, which is below any model's, without stages."""
    return stages[stage_at(stages, step, steps)].layers if stages else 0


def steps_left(stages: Sequence[Stage], step: int, steps: int, layers: int) -> float:
    """Steps from `step` on, each counted by its depth as a multiple of `layers`, the present one.

    The work that is left, in present steps: what a time left is to be reckoned from.
    """
    if not stages:
        return steps - step
    begins = [max(step, first_step(stage, steps)) for stage in stages]
    ends = [*begins[1:], steps]
    return sum(
        max(0, end - max(step, begin)) * max(1.0, stage.layers / layers)
        for stage, begin, end in zip(stages, begins, ends, strict=True)
    )


def grow(
    model: LanguageModel, optimizer: Optimizer, layers: int, seed: int
) -> tuple[LanguageModel, Optimizer]:
    """The model with `layers` blocks, in the same mode, and its optimizer with moments carried.

    Leaves every random state as it was. The old two are done with.
    """
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed + _APART * layers)
        deeper, names = model.grown(layers)
    old, new = dict(model.named_parameters()), dict(deeper.named_parameters())
    assert names.keys() == new.keys(), "a name for every parameter"
    assert all(was is None or new[name].shape == old[was].shape for name, was in names.items())
    assert deeper.config.layers == layers
    deeper.grad_checkpoint = model.grad_checkpoint
    return deeper.train(model.training), optimizer.for_grown_model(deeper, names)


@torch.inference_mode()
def sample_loss(model: LanguageModel, data: PreparedData, dtype: torch.dtype) -> float:
    """Nats per token on the first validation windows: the same text before and after a growth."""
    x, y = next(
        val_batches(data.stream("val"), model.config.context, SAMPLE_ROWS, data.tokenizer.end)
    )
    was_training = model.training
    model.eval()
    with autocast(model.device, dtype):
        hidden = model.hidden(x.to(model.device)).x
    loss = cross_entropy(hidden, model.head, y.to(model.device), dtype)
    model.train(was_training)
    return loss.item()
