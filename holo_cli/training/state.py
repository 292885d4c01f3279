"""Everything that a stopped run needs to resume as if it had not stopped.

Counters are plain data and go into the checkpoint's header; optimizer moments, accumulated
gradients and random states are tensors and go beside the weights. Python writes floats so that
they read back to the same bits, so sums in the counters survive exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from holo_cli.checkpoint.header import Count, Header, Name, StageRow, complaint
from holo_cli.checkpoint.stored import StoredTensors
from holo_cli.errors import CheckpointError
from holo_cli.training.optim import Optimizer
from holo_cli.training.sharded_tensors import part_from


@dataclass
class Progress:
    """Where a run is. A step is one optimizer update; a micro-step one forward and backward."""

    step: int = 0
    micro: int = 0  # micro-steps already accumulated towards the next update
    tokens: int = 0
    windows: int = 0  # the data position: full-context windows read
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    train_loss: float | None = None  # last one logged
    val_loss: float | None = None
    bpb: float | None = None
    best_val: float | None = None
    best_step: int = 0
    step_loss: float = 0.0  # of the accumulation under way
    logged_loss: float = 0.0  # sum over the updates since the last line of metrics
    logged_steps: int = 0
    loss_scale: float | None = None  # of float16, see loss_scale.py
    scale_steps: int = 0  # since it changed
    aux: dict[str, float] = field(default_factory=dict)  # like logged_loss, by name
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per evaluation
    stages: list[dict[str, Any]] = field(default_factory=list)  # one row per stage of growth begun

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Progress:
        """Raises CheckpointError for counters that are not those of this version, or cannot be."""
        try:
            return cls(**StoredProgress.model_validate(stored).model_dump(exclude_unset=True))
        except ValidationError as error:
            raise _unknown(complaint(error)) from error

    @classmethod
    def of(cls, header: Header) -> Progress:
        """The progress in a checkpoint's header, which must say the same of the moment as the rest
        of the header. Raises CheckpointError."""
        found = cls.from_dict(header.state)
        same = {
            "step": found.step == header.step,
            "tokens": found.tokens == header.tokens,
            "history": found.history == header.history,
            "stages": [StageRow(**row) for row in found.stages] == header.stages,
        }
        if wrong := [key for key, agrees in same.items() if not agrees]:
            raise _unknown(f"its '{wrong[0]}' is not that of the header")
        return found


Seconds = Annotated[float, Field(ge=0, le=1e12)]
# JSON has no NaN: a sum that was none is stored as null, and the next step says that it diverged
Sum = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


class StoredProgress(BaseModel):
    """`Progress` as a checkpoint that anybody may have written holds it."""

    model_config = ConfigDict(extra="forbid")

    step: Count = 0
    micro: Count = 0
    tokens: Count = 0
    windows: Count = 0
    train_seconds: Seconds = 0.0
    eval_seconds: Seconds = 0.0
    train_loss: float | None = None
    val_loss: float | None = None
    bpb: float | None = None
    best_val: float | None = None
    best_step: Count = 0
    step_loss: Sum = 0.0
    logged_loss: Sum = 0.0
    logged_steps: Count = 0
    loss_scale: float | None = Field(default=None, ge=2.0**-40, le=2.0**40)
    scale_steps: Count = 0
    aux: dict[Name, Sum] = {}
    history: list[dict[str, Any]] = []  # checked as the header's, which is the same
    stages: list[dict[str, Any]] = []


def _unknown(reason: str) -> CheckpointError:
    return CheckpointError(
        f"The training state in this checkpoint is not one that this holo knows ({reason}).",
        next_step="Resume it with the holo that wrote it; generate and chat still work.",
    )


def rng_states() -> dict[str, Tensor]:
    """The states of the generators of this process, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def training_tensors(
    model: nn.Module, optimizer: Optimizer, random: Mapping[str, Sequence[Tensor]]
) -> dict[str, Tensor]:
    """Optimizer state, gradients of an accumulation under way, and random states, by name.

    `random` holds the states of every process, by device and rank.
    """
    out = {f"optimizer/{name}": t for name, t in optimizer.state_tensors().items()}
    for name, p in model.named_parameters():
        if p.grad is not None:
            out[f"grad/{name}"] = p.grad
    for device, states in random.items():
        for rank, state in enumerate(states):
            out[_random(device, rank)] = state
    return out


def _random(device: str, rank: int) -> str:
    return f"rng/{device}/{rank}" if rank else f"rng/{device}"


def restore_training_state(
    model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], rank: int = 0
) -> None:
    """The inverse of `training_tensors`, for the process of that rank.

    A process that the saved run did not have starts from a state derived from the first process's.
    Raises CheckpointError for what is missing or misfits.
    """

    def part(prefix: str) -> Mapping[str, Tensor]:
        if isinstance(tensors, StoredTensors):
            return tensors.part(prefix)
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    grads = part("grad/")
    _check_tensors(model, optimizer, part("optimizer/"), grads)
    try:
        optimizer.load_state_tensors(part("optimizer/"))
        for name, p in model.named_parameters():
            p.grad = part_from(grads, name, p).clone() if name in grads else None
        known = _random("cpu", rank) in tensors
        mine = rank if known else 0
        torch.set_rng_state(tensors[_random("cpu", mine)])
        # a run may move between devices: a random state of a device that is not here is left out
        if _random("cuda", mine) in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[_random("cuda", mine)])
        if _random("mps", mine) in tensors and torch.backends.mps.is_available():
            torch.mps.set_rng_state(tensors[_random("mps", mine)])
        if not known:
            torch.manual_seed(int(torch.randint(2**62, ())) + rank)
    except (KeyError, RuntimeError, TypeError) as error:  # a random state has its own form
        raise _misfit(str(error).partition("\n")[0]) from error


def _check_tensors(
    model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor], grads: Mapping[str, Tensor]
) -> None:
    """Raises CheckpointError for optimizer state or gradients of another form than the model's."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    expected = optimizer.state_shapes()
    for name in state:
        if name not in expected:
            raise _misfit(f"the model has no place for 'optimizer/{name}'")
        if not _fits(state, name, expected[name]):
            raise _misfit(f"'optimizer/{name}' has another shape or kind than its parameter")
    for name in grads:
        if name not in shapes:
            raise _misfit(f"the model has no place for 'grad/{name}'")
        if not _fits(grads, name, shapes[name]):
            raise _misfit(f"'grad/{name}' has another shape or kind than its parameter")


def _fits(tensors: Mapping[str, Tensor], name: str, shape: torch.Size) -> bool:
    if isinstance(tensors, StoredTensors):
        return tensors.shape(name) == tuple(shape) and tensors.is_floating_point(name)
    return tensors[name].shape == shape and tensors[name].is_floating_point()


def _misfit(reason: str) -> CheckpointError:
    return CheckpointError(
        f"The training state in this checkpoint does not fit its model ({reason}).",
        next_step="Start a new run, or resume from another checkpoint.",
    )
