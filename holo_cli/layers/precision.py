"""Precision of states, logarithms and long sums: float32 at least, also under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def product_dtype(x: Tensor) -> torch.dtype:
    """What autocast would make of `x` in a product; for products that it does not know."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off on the device of `x`: sums over thousands of tokens are not for bfloat16."""
    return torch.autocast(x.device.type, enabled=False)
