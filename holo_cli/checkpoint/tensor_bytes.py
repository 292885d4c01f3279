"""A tensor as the bytes that a checkpoint stores, and whether its values are numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's elements in row-major order as bytes, copied only where needed."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    if not tensor.is_floating_point():
        return True
    if tensor.element_size() == 1:  # the 8-bit formats have no sum
        tensor = tensor.float()
    # A sum over numbers that are not finite is not finite, and is found many times faster than
    # each of them; a sum that overflows decides nothing.
    return bool(tensor.sum().isfinite()) or bool(torch.isfinite(tensor).all())


def not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    if is_finite(tensor):
        return 0
    return int((~torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor)).sum())
