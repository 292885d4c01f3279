"""The legacy formula, and the blend of memory and attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from holo_cli.models.holographic.legacy_binding import LegacyBinding, per_token
from holo_cli.models.holographic.mixer import GATE_MAX, GATE_MIN, Blend, Holographic
from holo_cli.models.holographic.model import Model
from tests.models.holographic.parts import awake, config, randn

# -- classic ---------------------------------------------------------------------------------------


def test_the_legacy_formula_mixes_no_tokens() -> None:
    q, k, v = randn(3, 1, 12, 8).unbind(0)
    changed = v.clone()
    changed[:, 3] += 1
    difference = (per_token(q, k, changed) - per_token(q, k, v)).abs().amax(-1)[0]
    assert difference[3] > 0.1
    assert difference[:3].max() == 0
    assert difference[4:].max() == 0


def test_classic_starts_as_it_did_and_without_attention_nothing_is_mixed() -> None:
    part = LegacyBinding(config(mixer="classic"))
    part.finish_initialisation()
    assert torch.sigmoid(part.share).item() == pytest.approx(0.525, abs=1e-3)
    part = awake(part)
    part.share.data.fill_(100.0)  # the formula alone
    x = randn(1, 9, 16)
    changed = x.clone()
    changed[:, 2] += 1
    difference = (part(changed)[0] - part(x)[0]).abs().amax(-1)[0]
    assert difference[2] > 1e-3
    assert difference[3:].max() < 1e-12


# -- blend -----------------------------------------------------------------------------------------


def test_the_blend_stays_between_its_bounds_and_always_has_a_gradient() -> None:
    blend = Blend(config(blend=True)).double()
    blend.finish_initialisation()
    first = blend.gate(randn(1, 4, 16))
    torch.testing.assert_close(first, torch.full_like(first, 0.05 + 0.85 / (1 + math.exp(2))))
    torch.nn.init.normal_(blend.share.weight)
    x = (20 * randn(1, 200, 16)).requires_grad_()
    gate = blend.gate(x)
    assert gate.min() >= GATE_MIN
    assert gate.max() <= GATE_MAX
    assert gate.max() - gate.min() > 0.8  # per token, the whole range
    small = blend.gate(randn(1, 50, 16))
    small.sum().backward()
    assert blend.share.weight.grad is not None
    assert (blend.share.weight.grad != 0).all()


def test_a_blend_is_the_two_norms_in_the_gate_s_proportion() -> None:
    mixer = awake(Holographic(config(blend=True)))
    x = randn(1, 11, 16)
    outs = {}
    for bias in (-50.0, 50.0, 0.0):
        mixer.blend.share.weight.data.zero_()
        mixer.blend.share_bias.data.fill_(bias)
        outs[bias] = mixer(x)[0]
    # 0.05, 0.9 and 0.475 of the memory: on one line, since norms and gate stay as they are
    middle = torch.lerp(outs[-50.0], outs[50.0], (0.475 - GATE_MIN) / (GATE_MAX - GATE_MIN))
    torch.testing.assert_close(outs[0.0], middle)


@pytest.mark.parametrize(
    ("overrides", "limit", "grows"),
    [
        ({}, None, False),
        ({"phases": "learned"}, None, False),
        ({"mixer": "fftconv"}, None, False),
        ({"topology": True}, None, False),
        ({"blend": True}, 64, True),
        ({"attention_every": 2}, 64, True),
        ({"mixer": "classic"}, 64, True),
    ],
)
def test_only_attention_limits_the_context(
    overrides: dict[str, Any], limit: int | None, grows: bool
) -> None:
    model = Model(config(**overrides))
    assert model.context_limit == limit
    assert (model.state_bytes(64) > model.state_bytes(1)) == grows


def test_it_decodes_past_its_context_in_constant_memory() -> None:
    torch.manual_seed(0)
    model = Model(config()).eval()
    tokens = torch.randint(0, 29, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(tokens)
        _, state = model.step(tokens[:, :250], model.init_state(1))
        size = state.nbytes()
        rest, state = model.step(tokens[:, 250:], state)
    torch.testing.assert_close(rest, whole[:, 250:], rtol=1e-4, atol=1e-4)
    assert state.nbytes() == size
