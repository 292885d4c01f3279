"""A model in one configuration, at the small shapes that the checks use."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from holo_cli import registry
from holo_cli.errors import UsageError
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
    """A model, and the overrides of its config in one of the `CASES` of its reference."""

    name: str
    label: str
    overrides: dict[str, Any]

    @property
    def reference(self) -> ModuleType | None:
        """The module with CASES, CLAIMS and the slow form; None for a model without one."""
        return registry.part(self.name, "reference")

    @property
    def claims(self) -> oracle.Claims:
        module = self.reference
        return oracle.Claims() if module is None else oracle.claims(module, self.label)

    @property
    def has_formula(self) -> bool:
        """Whether there is a slow form to hold the fast one against."""
        return hasattr(self.reference, "mix") or hasattr(self.reference, "logits")

    def logits(self, model: LanguageModel, tokens: Tensor) -> Tensor:
        """The slow, obvious form."""
        assert self.reference is not None
        return oracle.logits(self.reference, model, tokens)

    def build(self, *, noisy: bool = True, dtype: torch.dtype = torch.float64) -> LanguageModel:
        """A seeded model in eval mode; `noisy`: nothing is left at the zeros of initialisation.

        Raises UsageError for a config that refuses the small shape.
        """
        torch.manual_seed(0)
        try:
            config = registry.config_class(self.name)(**{**SHAPE, **self.overrides})
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise UsageError(
                f"{self.name}: its config refuses the shape of the checks ({reason}).",
                next_step='Name one that fits: CASES = {"small": {"width": 32}} in reference.py.',
            ) from None
        with torch.inference_mode(False):  # parameters as a model has them, whoever asks for it
            model = registry.build_model(self.name, config)
            if noisy:
                add_noise(model)
            return model.to(dtype).eval()


@torch.no_grad()
def add_noise(model: nn.Module) -> None:
    """Seeded noise on every parameter, so that branches which start at zero take part."""
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        scale = 0.3 / (p.shape[-1] ** 0.5) if p.ndim > 1 else 0.1
        p.add_(scale * torch.randn(p.shape, generator=generator))


def cases_of(name: str) -> list[Case]:
    """The configurations that a model's reference lists; one of its defaults without a list."""
    module = registry.part(name, "reference")
    listed: dict[str, dict[str, Any]] = getattr(module, "CASES", {"defaults": {}})
    return [Case(name, label, overrides) for label, overrides in listed.items()]


def random_tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
