"""A mixer of nothing but a config, `forward` and `step`: every default does its work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.interfaces import Aux, Mixer
from holo_cli.models.backbone import Backbone
from holo_cli.models.oracle import Inputs, Vectors, backbone_logits, total
from holo_cli.models.vanilla.attention import Attention

SHAPE: dict[str, Any] = {"vocab_size": 23, "layers": 2, "heads": 2, "width": 16, "context": 32}


class RunningMean(Mixer):
    """The mean of the past's values."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        return self.step(x, None)[0], {}

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        v = self.value(x)
        before, count = (torch.zeros_like(v[:, 0]), 0) if state is None else state
        sums = before[:, None] + v.cumsum(1)
        seen = torch.arange(count + 1, count + x.shape[1] + 1, dtype=v.dtype, device=x.device)
        return self.out(sums / seen[:, None]), (sums[:, -1], count + x.shape[1])


class Model(Backbone):
    def make_mixer(self, layer: int) -> Mixer:
        return RunningMean(self.config)


def mix(mixer: RunningMean, inputs: Inputs) -> Vectors:
    v = [mixer.value.weight @ x for x in inputs]
    return [mixer.out.weight @ (total(v[: t + 1]) / (t + 1)) for t in range(len(v))]


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    made = Model(BackboneConfig(**SHAPE)).double().eval()
    with torch.no_grad():
        for p in made.parameters():
            p += 0.2 * torch.randn_like(p)
    return made


def test_it_decodes_and_its_rows_can_be_chosen(model: Model) -> None:
    tokens = torch.randint(0, 23, (3, 17))
    whole = model(tokens)
    rows = torch.tensor([2, 0, 2])
    first, state = model.step(tokens[:, :9], model.init_state(3).select(torch.arange(3)))
    rest, _ = model.step(tokens[rows, 9:], state.select(rows))
    torch.testing.assert_close(first, whole[:, :9])
    torch.testing.assert_close(rest, whole[rows, 9:])


def test_its_formula_is_enough_for_the_oracle(model: Model) -> None:
    tokens = torch.randint(0, 23, (2, 9))
    slow = backbone_logits(SimpleNamespace(mix=mix), model, tokens)
    torch.testing.assert_close(model(tokens), slow, rtol=1e-9, atol=1e-9)


def test_its_costs_are_measured(model: Model) -> None:
    described = model.describe()
    _, state = model.step(torch.zeros(1, 32, dtype=torch.int64), model.init_state(1))
    assert described.state_bytes == state.nbytes() == 2 * 16 * 8 + 8  # sums, and the last token
    assert model.layers()[0].mixer.flops(20) == 0  # sums are no products
    assert described.active_parameters == described.parameters


def test_measured_flops_of_attention_are_its_formula() -> None:
    mixer = Attention(BackboneConfig(**SHAPE))
    mixer.gain = None
    assert Mixer.flops(mixer, 20) == mixer.flops(20) == 4 * 20 * 16
    assert Mixer.state_bytes(mixer, 20) == mixer.state_bytes(20)


def test_switched_off_it_leaves_the_stream_alone(model: Model) -> None:
    tokens = torch.randint(0, 23, (1, 6))
    other = (tokens + 1) % 23
    other[0, -1] = tokens[0, -1]
    assert not torch.allclose(model(tokens)[0, -1], model(other)[0, -1])
    model.disable()
    torch.testing.assert_close(model(tokens)[0, -1], model(other)[0, -1])
    assert all(not b.mixer.out.weight.requires_grad for b in model.layers())
