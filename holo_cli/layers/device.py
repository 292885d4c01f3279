"""Which form of an operation to use on a device."""

from __future__ import annotations

import torch
from torch import Tensor


def eager_cpu(x: Tensor) -> bool:
    """Whether hand-written backward passes are faster: on CPUs, outside torch.compile.

    Eager CPU kernels cost tens of microseconds each whatever their size, so fewer of them is
    faster. GPUs have fused kernels for the plain forms, and torch.compile generates its own.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
