"""Every model found, in every configuration that its `reference.py` lists, at small shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from holo_cli import registry
from holo_cli.models import oracle
from holo_cli.models.base import LanguageModel

VOCAB, CONTEXT = 29, 64
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "layers": 2,
    "heads": 2,
    "width": 16,
    "context": CONTEXT,
}


@dataclass(frozen=True)
class Case:
    """A model in one configuration."""

    name: str
    label: str
    overrides: dict[str, Any]

    @property
    def reference(self) -> ModuleType:
        return registry.part(self.name, "reference")

    @property
    def claims(self) -> oracle.Claims:
        return oracle.claims(self.reference, self.label.split(":")[1])

    def logits(self, model: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
        """The slow obvious form."""
        return oracle.logits(self.reference, model, tokens)

    def build(self, *, awake: bool = True, dtype: torch.dtype = torch.float64) -> LanguageModel:
        """A seeded model in eval mode; `awake`: nothing is left at the zeros of initialisation."""
        torch.manual_seed(0)
        config = registry.config_class(self.name)(**{**SHAPE, **self.overrides})
        model = registry.build_model(self.name, config)
        if awake:
            awaken(model)
        return model.to(dtype).eval()


@torch.no_grad()
def awaken(model: nn.Module) -> None:
    """Add seeded noise, so that branches which start at zero take part."""
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        scale = 0.3 / (p.shape[-1] ** 0.5) if p.ndim > 1 else 0.1
        p += scale * torch.randn(p.shape, generator=generator)


def cases() -> Iterator[Case]:
    for name in registry.model_names():
        module = registry.part(name, "reference")
        for label, overrides in module.CASES.items():
            yield Case(name, f"{name}:{label}", overrides)


@pytest.fixture(params=list(cases()), ids=lambda case: case.label)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def model(case: Case) -> LanguageModel:
    return case.build()


def random_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
