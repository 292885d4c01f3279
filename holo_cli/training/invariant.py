"""Training that does not depend on the number of processes (`training.world_invariant`).

A sum of floating point numbers depends on its order, and the order on who has computed what: runs
on 1, 2 and 4 processes differ in the last bit after a step, and visibly after some hundred. Here a
step is a fixed row of batches of `batch_size` rows, whoever computes them: process r of N takes
batches r, r + N, ... The gradient of a batch is the same in any process, and they add up in
float64, where a sum of float32 numbers is exact but for rare cases, so that its order does not
matter. Random choices (dropout) are drawn by the number of the batch.

What is paid: 8 bytes for each parameter that a process holds, and twice the traffic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from holo_cli.training.distributed import World
from holo_cli.training.sharded_tensors import is_sharded

_MIX = 0x9E3779B97F4A7C15  # an odd constant: neighbouring batches get seeds far apart


def batch_seed(seed: int, number: int) -> int:
    """The seed of the random choices in batch `number` of a run."""
    return (seed + (number + 1) * _MIX) % 2**63


class GradientSums:
    """The gradients of parameters that each process holds whole, summed in float64."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._sums: list[Tensor] = []

    def add(self) -> None:
        """Add the gradients of a batch, and take them off the parameters."""
        if not self._sums:
            self._sums = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        for p, total in zip(self.parameters, self._sums, strict=True):
            if p.grad is not None:
                total.add_(p.grad)
                p.grad = None

    def to_gradients(self, world: World) -> None:
        """Give the parameters the sums over all processes as gradients, and start at zero."""
        if world.size > 1 and self._sums:
            flat = torch.cat([total.reshape(-1) for total in self._sums])
            dist.all_reduce(flat)
            parts = flat.split([p.numel() for p in self.parameters])
            self._sums = [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]
        for p, total in zip(self.parameters, self._sums, strict=True):
            p.grad = total.to(p.dtype)
        self.drop()

    def drop(self) -> None:
        """Forget what was added."""
        self._sums = []


class RunningSum:
    """A hook for what FSDP has reduced of one block's gradients: replaces it by the sum over the
    batches of the step so far, in its own format, float64."""

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def __call__(self, reduced: Tensor) -> None:
        if self.total is None:
            self.total = reduced.clone()
        else:
            self.total.add_(reduced)
            reduced.copy_(self.total)


def exact_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, summed in float64 and rounded to float32 at the end."""
    whole, spread = [], []
    group = None
    for p in parameters:
        if p.grad is None:
            continue
        if is_sharded(p.grad):
            mesh = p.grad.device_mesh  # type: ignore[attr-defined]
            group = mesh.get_group(mesh.ndim - 1)
            spread.append(p.grad.to_local())  # type: ignore[attr-defined]
        else:
            whole.append(p.grad)
    found = [_squares(part) for part in (whole, spread)]
    if group is not None:
        dist.all_reduce(found[1], group=group)
    return torch.stack([f.to(found[0].device) for f in found]).sum().sqrt().float()


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack([t.double().square().sum() for t in tensors]).sum()


def clip_exactly(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Like `optim.clip_grad_norm`, with the same bits for any number of processes."""
    norm = exact_norm(parameters)
    value = norm.item()
    if limit > 0 and math.isfinite(value):
        factor = min(1.0, limit / (value + 1e-6))
        for p in parameters:
            if p.grad is not None and factor < 1:
                p.grad.mul_(factor)
    return value
