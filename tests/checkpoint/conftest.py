"""A small vanilla model with its header, as a run would save it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.checkpoint import Header, model_tensors, save
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.models.base import LanguageModel

ALPHABET = " abcdefghijklmnop가나다라마"


@dataclass
class Run:
    """A model in memory and what belongs in its checkpoint."""

    model: LanguageModel
    header: Header
    tokenizer: CharTokenizer

    def tensors(self) -> dict[str, Tensor]:
        return model_tensors(self.model)

    def save(self, path: Path, **changes: Any) -> Path:
        save(path, self.header.model_copy(update=changes), self.tensors())
        return path


def make_run(name: str = "vanilla", run: str = "small", **keys: Any) -> Run:
    tokenizer = CharTokenizer(ALPHABET).with_specials(["<|en|>", "<|ko|>"])
    wanted = {
        "layers": 2, "heads": 2, "width": 16, "context": 12, "vocab_size": tokenizer.vocab_size
    } | keys  # fmt: skip
    config = registry.config_class(name)(**wanted)
    torch.manual_seed(0)
    model = registry.build_model(name, config)
    with torch.no_grad():  # no zeros left: every tensor matters to the logits
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    header = Header(
        model=name,
        config={"model": config.model_dump(mode="json"), "training": {}, "data": {}},
        tokenizer=tokenizer.to_dict(),
        step=7,
        run=run,
        kind="best",
    )
    return Run(model.eval(), header, tokenizer)


@pytest.fixture
def make() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def run() -> Run:
    return make_run()


@pytest.fixture
def classic() -> Run:
    return make_run(recipe="classic")


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, len(ALPHABET), (2, 12), generator=torch.Generator().manual_seed(1))
