"""The learned query gain, and what it is for."""

from __future__ import annotations

import torch

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.gain import RATE, START, QueryGain
from holo_cli.models.vanilla.attention import Attention


def test_the_gain_scales_each_head_by_its_own_factor() -> None:
    gain = QueryGain(2)
    q = torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(gain(q), START * q)
    with torch.no_grad():
        gain.log_gain.copy_(torch.tensor([0.1, -0.2]))
    expected = torch.stack((q[:, 0] * START * 2.718281828 ** (0.1 * RATE),
                            q[:, 1] * START * 2.718281828 ** (-0.2 * RATE)), 1)  # fmt: skip
    torch.testing.assert_close(gain(q), expected)


def test_the_gain_is_what_lets_attention_look_at_one_token_alone() -> None:
    """Without it no token of 128 gets more than 0.69 of the weight, at 32 dimensions a head."""
    length = 128

    def sharpest(gain: float | None) -> float:
        attention = Attention(BackboneConfig(width=32, heads=1, query_gain=gain is not None))
        with torch.no_grad():
            # queries equal to keys, and keys of one token opposite to those of all others
            weight = torch.zeros(96, 32)
            weight[:32] = weight[32:64] = torch.eye(32)
            attention.qkv.weight.copy_(weight)
            attention.rope.rotated = 0
            if attention.gain is not None and gain is not None:
                attention.gain.log_gain.fill_(gain)
        x = -torch.ones(1, length, 32)
        x[0, -1] = 1.0
        return attention.weights(x)[0, 0, -1, -1].item()

    limit = 1 / (1 + (length - 1) * 2.718281828 ** (-2 * 32**0.5))
    assert abs(sharpest(None) - limit) < 1e-3
    assert sharpest(0.3) > 1 - 1e-9 > sharpest(None)


def test_a_switched_off_gain_leaves_no_parameter() -> None:
    config = BackboneConfig(width=16, heads=2, query_gain=False)
    assert "gain.log_gain" not in dict(Attention(config).named_parameters())
