"""Small parts of the holographic model, awake in float64, for its tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.holographic.config import Config

SMALL: dict[str, Any] = {"vocab_size": 29, "layers": 2, "heads": 2, "width": 16, "context": 64}


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def config(**overrides: Any) -> Config:
    return Config(**{**SMALL, **overrides})


def awake(part: torch.nn.Module) -> Any:
    """A part in float64 whose every parameter is random."""
    part = part.double()
    for seed, p in enumerate(part.parameters()):
        p.data = randn(*p.shape, seed=seed) / max(p.shape[-1], 1) ** 0.5 if p.ndim else p.data + 0.3
    return part
