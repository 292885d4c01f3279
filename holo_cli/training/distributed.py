"""Several processes that train one model on different data (started by `torchrun`).

Each process reads its own share of every batch; gradients are averaged before the update, so all
hold the same weights. Only the first one evaluates, prints and writes. One process is the normal
case, in which everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """`size` processes, of which this is number `rank`."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for t, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(mean.view_as(t))

    def mean(self, value: float) -> float:
        """The mean of a number over the processes, on every one of them."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(total)
        return total.item() / self.size

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, of one shape everywhere, by rank."""
        if self.size == 1:
            return [tensor]
        mine = tensor.to(_device())
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        return [t.to(tensor.device) for t in found]

    def barrier(self) -> None:
        """Return when all processes have called this."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process (all-reduce, max)."""
        if self.size == 1:
            return flag
        asked = torch.tensor(float(flag), device=_device())
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())

    def broadcast(self, value: float | None) -> float | None:
        """The first process's value, on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def processes() -> int:
    """How many processes torchrun's environment describes; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes; a world of one without it."""
    size = processes()
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield World(dist.get_rank(), size)
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone
