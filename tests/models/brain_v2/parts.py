"""Small models and parts of brain-v2 for the tests beside this file."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.model import Model

VOCAB = 29


def config(**given: Any) -> Config:
    """Two layers with all their parts, unless `layout` says otherwise: few layers show much."""
    shape: dict[str, Any] = {"vocab_size": VOCAB, "layers": 2, "heads": 2, "width": 16}
    return Config(**{**shape, "context": 64, "layout": "added", **given})


def awake(module: nn.Module, seed: int = 1) -> nn.Module:
    """Noise on everything, so that what starts at zero takes part."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            scale = 0.3 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.1
            p += scale * torch.randn(p.shape, generator=make, dtype=p.dtype)
    return module


def model(**given: Any) -> Model:
    """In float64 and eval mode, nothing at zero."""
    torch.manual_seed(0)
    made = Model(config(**given))
    awake(made)
    return made.double().eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
