"""Small brains in float64, awake: nothing is left at the zeros of initialisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.model import Model

VOCAB = 29
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "layers": 3,
    "heads": 2,
    "width": 16,
    "mlp_ratio": 4.0,
    "context": 32,
    "columns": 8,
    "activity": 0.25,
}


def make_config(**given: Any) -> Config:
    return Config(**{**SHAPE, **given})


def make_model(*, awake: bool = True, dtype: torch.dtype = torch.float64, **given: Any) -> Model:
    torch.manual_seed(0)
    model = Model(make_config(**given))
    if awake:
        with torch.no_grad():
            for p in model.parameters():
                p += (0.3 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.1) * torch.randn_like(p)
    return model.to(dtype).eval()


def make_tokens(rows: int = 2, length: int = 21, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
