"""Tensors that several processes hold parts of (DTensor), and plain ones, handled alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist
from torch import Tensor

from holo_cli.checkpoint.stored import StoredTensors


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


def part_from(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor, the same in all processes, in the form, dtype and device of `like`.

    Of a checkpoint that is read on demand a process reads its own rows alone.
    """
    if not is_sharded(like):
        return tensors[name].to(like.device, like.dtype)
    from torch.distributed.tensor import DTensor, distribute_tensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(like, DTensor)
    mesh, placements = like.device_mesh, like.placements
    if not (isinstance(tensors, StoredTensors) and like.ndim):
        full = tensors[name].to(like.device, like.dtype)
        # each process takes its own part: nothing is sent
        return distribute_tensor(full, mesh, placements, src_data_rank=None)
    shape, offset = compute_local_shape_and_global_offset(like.shape, mesh, placements)
    rows = tensors.rows(name, offset[0], shape[0]).to(like.device, like.dtype)
    return DTensor.from_local(
        rows, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )
