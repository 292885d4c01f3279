"""What is true of gated linear attention only."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from holo_cli.models.gla.attention import GatedLinearAttention
from holo_cli.models.gla.config import Config
from holo_cli.models.gla.model import Model

SHAPE = {"vocab_size": 29, "layers": 1, "heads": 2, "width": 16, "context": 32}


def test_state_is_keys_by_values_and_does_not_grow() -> None:
    model = Model(Config(**SHAPE))
    mixer = model.make_mixer(0)
    assert mixer.init_state(3).memory.shape == (3, 2, 4, 8)
    assert mixer.state_bytes(1) == mixer.state_bytes(1000) == 2 * 4 * 8 * 4


def test_temperature_slows_the_decay_down() -> None:
    """With gates at sigmoid(0), a value has halved after `temperature` positions."""
    for temperature in (1.0, 16.0):
        torch.manual_seed(0)
        mixer = GatedLinearAttention(Config(**SHAPE, temperature=temperature)).double()
        mixer.finish_initialisation()
        torch.nn.init.zeros_(mixer.decay_down.weight)
        u = torch.randn(1, 1, 16, dtype=torch.float64)
        state = mixer.init_state(1)
        _, state = mixer.step(u, state)
        first = state.memory
        _, state = mixer.step(torch.zeros(1, 10, 16, dtype=torch.float64), state)
        torch.testing.assert_close(state.memory, first * 0.5 ** (10 / temperature))


def test_keys_need_a_whole_width() -> None:
    with pytest.raises(ValidationError, match="must be a whole number"):
        Config(**SHAPE, key_ratio=0.3)
    with pytest.raises(ValidationError, match="must be even with"):
        Config(**{**SHAPE, "width": 12}, key_ratio=0.5, rope_fraction=1.0)
