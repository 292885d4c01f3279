"""Presets with the size of a model that people know, at that model's vocabulary."""

from __future__ import annotations

import pytest
import torch

from holo_cli.config.resolve import resolve
from holo_cli.registry import build_model


@pytest.mark.parametrize(
    ("model", "preset", "recipe", "vocab_size", "parameters"),
    [
        ("vanilla", "gpt2-124m", "classic", 50_257, 124_439_808),  # transformers' GPT-2 has as many
        ("vanilla", "wikitext103-25m", "modern", 8192, 29_360_192),
        ("ngt", "wikitext103-25m", "modern", 8192, 29_393_984),
    ],
)
def test_parameters(model: str, preset: str, recipe: str, vocab_size: int, parameters: int) -> None:
    found = resolve(model, preset, recipe, flags={"model.vocab_size": vocab_size}, env={})
    with torch.device("meta"):
        built = build_model(model, found.model)
    assert sum(p.numel() for p in built.parameters()) == parameters
