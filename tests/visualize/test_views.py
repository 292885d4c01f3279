"""vanilla's attention weights are the ones its kernels use."""

from __future__ import annotations

import pytest
import torch

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.models.vanilla.attention import Attention
from holo_cli.models.vanilla.classic import ClassicBlock
from holo_cli.models.vanilla.views import attention
from holo_cli.models.views import watched
from tests.visualize.conftest import make_model


@pytest.mark.parametrize("recipe", ["modern", "classic", "llama"])
def test_weights_are_causal_distributions(tokenizer: Tokenizer, recipe: str) -> None:
    tokens = torch.tensor(tokenizer.encode("the cat gave the dog a fish"))
    weights = attention(make_model(tokenizer.vocab_size, recipe), tokens)
    assert weights.names == ["Block 1", "Block 2", "Block 3"]
    for layer in weights.layers:
        assert layer.shape == (2, len(tokens), len(tokens))
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
        assert layer.triu(1).abs().max() == 0


@pytest.mark.parametrize("recipe", ["modern", "classic"])
def test_weights_times_values_are_what_the_block_hears(tokenizer: Tokenizer, recipe: str) -> None:
    """The input of the output projection, which the fast kernel makes, from weights and values."""
    tokens = torch.tensor(tokenizer.encode("the cat gave the dog a fish"))
    model = make_model(tokenizer.vocab_size, recipe)
    parts = [m for m in model.modules() if isinstance(m, Attention | ClassicBlock)]
    with watched([p.out for p in parts]) as heard, watched([p.qkv for p in parts]) as made:
        shown = attention(model, tokens)
    assert len(parts) == len(shown.layers) == 3
    # the weights are made by a second call of each qkv, after the model's own
    for layer, (y, _), (_, qkv) in zip(shown.layers, heard, made[:3], strict=True):
        v = qkv[0].chunk(3, -1)[2].unflatten(-1, (2, -1)).transpose(0, 1)  # (H, T, d)
        expected = (layer @ v).transpose(0, 1).flatten(1)
        torch.testing.assert_close(expected, y[0], rtol=1e-4, atol=1e-5)
