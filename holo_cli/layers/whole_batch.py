"""Statistics of the whole batch, where several processes train on parts of it.

Gradients are averaged over the processes, which is right for every loss that is a mean over rows.
A loss that multiplies two statistics of the batch is none: the mean of products is not the product
of means. One of the two is averaged here, before the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor

_each_alone = False


@contextmanager
def each_batch_alone(flag: bool) -> Iterator[None]:
    """While inside, with `flag`, the batch of each process is a whole batch of its own."""
    global _each_alone
    before, _each_alone = _each_alone, flag
    try:
        yield
    finally:
        _each_alone = before


def over_processes(statistic: Tensor) -> Tensor:
    """The mean over the processes of a tensor that needs no gradient; in one process, itself.

    All processes must call this, and equally often: in training only, because one of them evaluates
    alone.
    """
    if _each_alone or not (dist.is_available() and dist.is_initialized()):
        return statistic
    total = statistic.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
