"""Everything that a stopped run needs to resume as if it had not stopped.

Counters are plain data and go into the checkpoint's header; optimizer moments, accumulated
gradients and random states are tensors and go beside the weights. Python writes floats so that
they read back to the same bits, so sums in the counters survive exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.errors import CheckpointError
from holo_cli.training.optim import Optimizer


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
    aux: dict[str, float] = field(default_factory=dict)  # like logged_loss, by name
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per evaluation
    stages: list[dict[str, Any]] = field(default_factory=list)  # one row per stage of growth begun

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Progress:
        """Raises CheckpointError for counters that are not those of this version."""
        try:
            return cls(**stored)
        except TypeError as error:
            raise CheckpointError(
                f"The training state in this checkpoint is not one that this holo knows ({error}).",
                next_step="Resume it with the holo that wrote it; generate and chat still work.",
            ) from error


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

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    try:
        optimizer.load_state_tensors(part("optimizer/"))
        grads = part("grad/")
        for name, p in model.named_parameters():
            p.grad = grads[name].to(p.device).clone().view_as(p) if name in grads else None
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
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"The training state in this checkpoint does not fit its model ({error}).",
            next_step="Start a new run, or resume from another checkpoint.",
        ) from error
