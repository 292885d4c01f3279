"""Several processes that train one model on different data (started by `torchrun`).

Each process reads its own share of every batch; gradients are averaged before the update, so all
hold the same weights. Only the first one evaluates, prints and writes. One process is the normal
case, in which everything here does nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from holo_cli.errors import TrainingError, UsageError

WAIT = 300  # seconds at the start; torch's own default is half an hour
WAIT_VARIABLE = "HOLO_RENDEZVOUS_TIMEOUT"
POLL_SECONDS = 0.02
PATIENCE = timedelta(hours=2)  # of one exchange: the others wait while the first one evaluates


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


def rendezvous_timeout() -> float:
    """Seconds that a process waits for the others at the start. Raises UsageError."""
    given = os.environ.get(WAIT_VARIABLE, "")
    try:
        seconds = float(given or WAIT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(
            f"{WAIT_VARIABLE} is '{given}', which is no number of seconds.",
            next_step=f"Use a number such as {WAIT}.",
        )
    return seconds


def _join(backend: str) -> None:
    """Make the process group. Raises TrainingError where the other processes do not come."""
    seconds = rendezvous_timeout()
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=seconds)))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = store_of_this_start(store, rank, size, seconds)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (dist.DistNetworkError, dist.DistStoreError, ConnectionError, TimeoutError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
        raise TrainingError(
            f"The other processes of this run did not meet at {where} within {seconds:g} s.",
            next_step="Check that all were started with the same address and number of processes; "
            f"{WAIT_VARIABLE}=SECONDS waits longer.",
        ) from error


def store_of_this_start(store: dist.Store, rank: int, size: int, seconds: float) -> dist.Store:
    """The part of torchrun's store that belongs to the processes of this start alone.

    torchrun keeps one store for all its starts, in which the addresses of processes that have ended
    would be taken for those of the new ones: they would wait for the dead. So the first process
    numbers the starts. Another one asks it by a word of its own, since any number that it could
    simply read may be that of an earlier start; and all wait until all have come. Raises
    TimeoutError or DistStoreError where some do not come within `seconds`.
    """
    if rank > 0:
        word = secrets.token_hex(16)
        store.set(f"holo/ask/{rank}", word)
        answer = f"holo/answer/{word}"
        store.wait([answer], timedelta(seconds=seconds))
        start = int(store.get(answer))
        store.set(f"holo/here/{start}/{rank}", "")
        store.wait([f"holo/all/{start}"], timedelta(seconds=seconds))
        return dist.PrefixStore(f"holo/group/{start}", store)
    start, end = store.add("holo/starts", 1), time.monotonic() + seconds
    answered: dict[int, str] = {}  # the word of a dead process may come first
    waiting = set(range(1, size))
    while waiting:
        for other in sorted(waiting):
            if store.check([f"holo/here/{start}/{other}"]):
                waiting.discard(other)
            elif store.check([f"holo/ask/{other}"]):
                word = store.get(f"holo/ask/{other}").decode()
                if answered.get(other) != word:
                    store.set(f"holo/answer/{word}", str(start))
                    answered[other] = word
        if waiting and time.monotonic() > end:
            raise TimeoutError
        time.sleep(POLL_SECONDS if waiting else 0)
    store.set(f"holo/all/{start}", "")
    return dist.PrefixStore(f"holo/group/{start}", store)


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes; a world of one without it."""
    size = processes()
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _join("nccl" if device.type == "cuda" else "gloo")
    yield World(dist.get_rank(), size)
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone
