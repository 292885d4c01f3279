"""Tokens as particles in float64, for the tests of gravity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.kernels import Kernel, make_kernel
from holo_cli.models.ngt.radius import weights

ATTRACTING = ["gravity", "gaussian", "lorentz"]
B, H, T, D, E = 2, 3, 21, 4, 6


def config(**given: Any) -> Config:
    shape = {"vocab_size": 29, "layers": 2, "heads": 2, "width": 16, "context": 64}
    return Config(**{**shape, **given})


def kernel_of(name: str, **given: Any) -> Kernel:
    """A kernel of three heads in float64, its parameters moved off their first values."""
    kernel = make_kernel(config(kernel=name, heads=H, width=H * 8, coords=D, **given)).double()
    with torch.no_grad():
        for p in kernel.parameters():
            p += 0.3 * torch.randn_like(p)
    return kernel


def particles(length: int = T, queries: int | None = None, spread: float = 1.0) -> list[Tensor]:
    """q, k, m, v with gradients, float64; q and m are of the last `queries` tokens."""
    torch.manual_seed(2)
    q, k = (spread * torch.randn(B, H, length, D, dtype=torch.float64) for _ in range(2))
    m = 0.1 + torch.rand(B, H, length, 1, dtype=torch.float64)
    v = torch.randn(B, H, length, E, dtype=torch.float64)
    q = q[:, :, -(queries or length) :].contiguous()
    return [x.requires_grad_() for x in (q, k, m, v)]


def pair_weight(kernel: Kernel, distance: float, mass: float = 1.0) -> float:
    """Share of a past token at a distance, beside one of mass 1 at distance 2 from the query."""
    q = torch.zeros(1, H, 1, D, dtype=torch.float64)
    k = torch.zeros(1, H, 2, D, dtype=torch.float64)
    k[..., 0, 0], k[..., 1, 1] = distance, 2.0
    m = torch.tensor([mass, 1.0], dtype=torch.float64).view(1, 1, 2, 1).expand(1, H, 2, 1)
    w = weights(kernel, None, q, k, m[:, :, 1:], m.log())
    return w[0, 0, 0, 0].item()
