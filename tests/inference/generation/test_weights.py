"""Eight-bit weights decode as the float weights they stand for; order in memory changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from holo_cli import registry
from holo_cli.config.resolve import resolve
from holo_cli.inference.generation.weights import quantise, relay
from holo_cli.layers.int8 import FEW_ROWS, Int8Embedding, Int8Head, Int8Linear, Int8Weight
from holo_cli.models.base import LanguageModel

MODELS = ("vanilla", "ngt", "holographic", "brain-v1", "brain-v2")


def built(name: str, *sets: str) -> LanguageModel:
    torch.manual_seed(1)
    sets = ("model.layers=2", "model.width=128", "model.heads=4", "model.context=64", *sets)
    config = resolve(name, sets=sets).model.model_copy(update={"vocab_size": 300})
    model = registry.build_model(name, config).eval()
    for parameter in model.parameters():  # not the zeros of a new model
        if parameter.ndim == 2 and not parameter.any():
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model


def stood_for(model: LanguageModel, eight: LanguageModel) -> LanguageModel:
    """The float model with the values that the eight-bit weights stand for."""
    found = copy.deepcopy(model)
    for name, module in eight.named_modules():
        if isinstance(module, Int8Linear | Int8Head):
            layer = found.get_submodule(name)
            assert isinstance(layer.weight, Tensor)
            layer.weight.data.copy_(module.weight)
    return found


@torch.inference_mode()
def decoded(model: LanguageModel, tokens: Tensor, prompt: int) -> Tensor:
    logits, state = model.step(tokens[:, :prompt], model.init_state(len(tokens)))
    found = [logits]
    for at in range(prompt, tokens.shape[1]):
        logits, state = model.step(tokens[:, at : at + 1], state)
        found.append(logits)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("name", MODELS)
def test_int8_is_the_float_model_it_stands_for(name: str) -> None:
    model = built(name)
    eight = copy.deepcopy(model)
    assert quantise(eight) >= 3
    reference = stood_for(model, eight)
    tokens = torch.randint(300, (2, FEW_ROWS + 4))
    expected, found = (decoded(m, tokens, FEW_ROWS) for m in (reference, eight))
    whole = slice(0, FEW_ROWS)  # two rows of sixteen are many: computed in float32
    assert torch.allclose(found[:, whole], expected[:, whole], atol=2e-4)
    off = (found - expected)[:, FEW_ROWS:].std() / expected.std()
    assert off < 0.02
    assert (found - expected).any()  # or it was not eight bits that decoded


def test_every_weight_is_within_half_a_step() -> None:
    weight = torch.randn(70, 33) * torch.logspace(-6, 3, 70)[:, None]
    weight[3] = 0
    matrix = Int8Weight(weight)
    assert int(matrix.q.abs().max()) == 127
    off = (matrix.weight - weight).abs()
    assert bool((off <= matrix.scale.float()[:, None] * 0.5001).all())
    assert bool((matrix.scale.float() * 127 <= weight.abs().amax(1).clamp_min(1e-9) * 1.01).all())
    rows = torch.tensor([[3, 69], [0, 0]])
    assert torch.equal(matrix.rows(rows), matrix.weight[rows])


@pytest.mark.parametrize("rows", [0, 1, FEW_ROWS, FEW_ROWS + 1])
def test_products_of_any_number_of_rows(rows: int) -> None:
    matrix, x = Int8Weight(torch.randn(40, 32)), torch.randn(rows, 1, 32)
    found = matrix.product(x)
    assert found.shape == (rows, 1, 40)
    assert torch.allclose(found, x @ matrix.weight.T, atol=0.2)  # a bfloat16 of about 10


@pytest.mark.parametrize("tied", ["true", "false"])
def test_a_tied_embedding_shares_the_matrix_of_the_head(tied: str) -> None:
    model = built("vanilla", f"model.tied={tied}")
    quantise(model)
    assert isinstance(model.head, Int8Head)
    token = model.get_submodule("embedding.token")
    assert isinstance(token, Int8Embedding) == (tied == "true")
    if isinstance(token, Int8Embedding):
        assert token.matrix is model.head.matrix
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_layers_whose_weights_are_read_stay() -> None:
    model = built("vanilla")
    up = model.get_submodule("blocks.0.mlp.up")

    def read(mlp: nn.Module, given: object) -> None:
        assert isinstance(mlp.get_submodule("up").weight, Tensor)

    model.get_submodule("blocks.0.mlp").register_forward_pre_hook(read)
    quantise(model)
    assert model.get_submodule("blocks.0.mlp.up") is up
    assert isinstance(model.get_submodule("blocks.1.mlp.up"), Int8Linear)


@pytest.mark.parametrize("name", ["vanilla", "ngt"])
def test_another_order_in_memory_changes_nothing_else(name: str) -> None:
    model = built(name)
    relaid = copy.deepcopy(model)
    for _ in range(2):
        relay(relaid)
    weights = zip(model.named_parameters(), relaid.parameters(), strict=True)
    changed = []
    for (where, before), after in weights:
        assert torch.equal(before, after)
        changed += [where] * (before.stride() != after.stride())
    assert "blocks.1.mlp.up.weight" in changed
    assert not any("down" in where for where in changed)
    assert relaid.head.weight.stride() == (1, 300)
    tokens = torch.randint(300, (1, 9))
    assert torch.allclose(decoded(relaid, tokens, 3), decoded(model, tokens, 3), atol=1e-5)
