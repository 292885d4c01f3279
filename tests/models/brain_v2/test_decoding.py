"""The quick step of brain-v2 against the backbone's own, and the matrix it multiplies by."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from holo_cli.inference.generation.weights import quantise, relay
from holo_cli.models.brain_v2 import decoding
from holo_cli.models.brain_v2.mixer import BrainMixer
from holo_cli.models.brain_v2.model import Model
from tests.models.brain_v2.parts import awake, config, tokens
from tests.models.quick_steps import check_state_is_a_value, counted, decoded


def built(**given: Any) -> Model:
    torch.manual_seed(0)
    made = Model(config(**{"layers": 2, "attention_share": 0.3, "attention_every": 2, **given}))
    awake(made)
    return made.eval()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"conv": 0, "memory_every": 1, "rope_fraction": 0.5},
        {"memory": "hebbian", "rope_fraction": 0.0, "attention_every": 1},
        {"memory": "none", "tied": False, "bigrams": 61},
        {"layout": "interleaved", "layers": 3, "attention_every": 3},
        {"layout": "interleaved", "memory_every": 1, "attention_every": 0},
        {"languages": ("en", "ko"), "language_tokens": (3, 4)},
    ],
)
def test_quick_steps_are_the_same_function(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = built(**given), tokens(3, 40)
    slow = decoded(model, ids, quick=False)
    calls = counted(monkeypatch, decoding)
    quick = decoded(model, ids, quick=True)
    assert len(calls) == 37
    torch.testing.assert_close(quick, slow, atol=2e-5, rtol=0)
    relay(model)
    by_columns = [block.mixer for block in model.layers() if isinstance(block.mixer, BrainMixer)]
    for mixer in by_columns:
        mixer.store_by_columns()
    torch.testing.assert_close(decoded(model, ids, quick=True), slow, atol=2e-5, rtol=0)


def test_a_state_can_be_continued_twice() -> None:
    check_state_is_a_value(built(attention_every=1), tokens(1, 9))


@torch.no_grad()
def test_parameters_stay_views_of_the_joined_matrix() -> None:
    """Trained, loaded, copied or cast: what is multiplied by is what the parameters hold."""
    model, ids = built(), tokens(2, 20)
    awake(model, seed=3)  # in place, as an optimizer does
    other = built()
    other.load_state_dict(model.state_dict())
    twin = copy.deepcopy(model)
    awake(twin, seed=4)
    for one in (model, other, twin, built().double().float()):
        quick = decoded(one, ids, quick=True)
        torch.testing.assert_close(quick, decoded(one, ids, quick=False), atol=2e-5, rtol=0)
    assert not torch.equal(decoded(twin, ids, quick=True), decoded(model, ids, quick=True))


@torch.no_grad()
def test_what_does_not_fit() -> None:
    model, one = built(), torch.zeros(1, 1, dtype=torch.long)
    state = model.init_state()
    assert decoding.fits(model, one, state)
    assert not decoding.fits(model, one.expand(1, 2), state)
    with torch.autocast("cpu", torch.bfloat16):
        assert not decoding.fits(model, one, state)
    with torch.enable_grad():
        assert not decoding.fits(model, one, state)
    mixer = model.layers()[0].mixer
    assert isinstance(mixer, BrainMixer)
    assert mixer.ssm is not None
    handle = mixer.ssm.register_forward_hook(lambda *given: None)
    assert not decoding.fits(model, one, state)
    handle.remove()
    for given in ({"ssm": "selective"}, {"ponder": 2}, {"canon": "A"}, {"value_residual": True}):
        assert not decoding.fits(built(**given), one, state)
    model.double()
    assert not decoding.fits(model, one, model.init_state())


def test_weights_in_int8_are_not_read_past() -> None:
    """Their layers have replaced the ones that are joined."""
    model, ids = built(width=128, heads=2), tokens(1, 20)
    plain = decoded(model, ids, quick=True)
    assert quantise(model) > 4
    rounded = decoded(model, ids, quick=True)
    assert 0 < (rounded - plain).std() < 0.1 * plain.std()
