"""What a mixer costs, measured where there is no formula: by one row of zeros through it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.state import tensors_of


def zeros(out: nn.Linear, length: int) -> Tensor:
    """One row of `length` positions of the stream that `out` writes into, (1, T, C)."""
    return out.weight.new_zeros(1, length, out.out_features)


def state_nbytes(state: Any) -> int:
    """Bytes of all tensors of a state."""
    return sum(t.numel() * t.element_size() for t in tensors_of(state))


@torch.no_grad()
def forward_flops(module: nn.Module, x: Tensor) -> float:
    """FLOPs of the products in `module(x)`, a multiply-add as two, without elementwise work."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # the counter sees products, not what a fused attention kernel does inside
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(x)
    return float(counter.get_total_flops())
