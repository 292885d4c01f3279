"""Tensors that several processes hold parts of (DTensor), and plain ones, handled alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is one of which each process holds a part."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor  # takes a while to import: only where needed

    return isinstance(tensor, DTensor)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor with all its values, in every process; any other as it is. All processes
    must call this together."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def gathered(
    tensors: Mapping[str, Tensor], same: Mapping[str, str], *, keep: bool
) -> dict[str, Tensor]:
    """Whole tensors on the CPU, by name, one after another; where `keep` is false, none.

    `same`: further names of a tensor, each with the first one. All processes must call this
    together.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in same:
            continue
        full = whole_tensor(tensor.detach())
        if keep:
            found[name] = full.cpu()
    return found | {name: found[first] for name, first in same.items() if first in found}


def part_of(full: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, in the form, dtype and device of `like`."""
    full = full.to(like.device, like.dtype)
    if not is_sharded(like):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # each process takes its own part: nothing is sent
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
