"""The quick step of gravity against the backbone's own, and the matrix it multiplies by."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.models.ngt import decoding
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.mixer import GravityMixer
from holo_cli.models.ngt.model import Model
from tests.models.quick_steps import (
    QUICK,
    check_eight_bits,
    check_joined_weights,
    check_state_is_a_value,
    counted,
    decoded,
    tokens,
    wake,
)

VOCAB = 53


def built(**given: Any) -> Model:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "layers": 2, "heads": 2, "width": 32, "context": 64}
    model = Model(Config(**{**shape, **given}))
    wake(model)
    return model.eval()


def mixers(model: Model) -> list[GravityMixer]:
    return [b.mixer for b in model.layers() if isinstance(b.mixer, GravityMixer)]


FORMS: list[dict[str, Any]] = [
    {},
    {"coords": 6, "coords_from": "position+token"},
    {"rope_fraction": 0.0},
    {"rope_fraction": 0.5, "tied": False},
    {"mass_in_value": False},
    {"separate_coords": False},
    {"learn_power": True, "mass_in_value": False},
]


@pytest.mark.parametrize("given", FORMS)
def test_quick_steps_are_the_same_function(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = built(**given), tokens(VOCAB, 3, 40)
    slow = decoded(model, ids, quick=False)
    calls = counted(monkeypatch, decoding)
    torch.testing.assert_close(decoded(model, ids, quick=True), slow, **QUICK)
    assert len(calls) == 37
    for mixer in mixers(model):
        mixer.store_by_columns()
        assert mixer.joined is not None
    torch.testing.assert_close(decoded(model, ids, quick=True), slow, **QUICK)
    torch.testing.assert_close(decoded(model, ids, quick=False), slow, **QUICK)


def test_a_state_can_be_continued_twice() -> None:
    check_state_is_a_value(built(), tokens(VOCAB, 1, 9))


def test_what_is_multiplied_by_is_what_the_parameters_hold() -> None:
    check_joined_weights(built, tokens(VOCAB, 2, 20))


def test_eight_bits_after_joining() -> None:
    model = built(width=128, heads=4)
    check_eight_bits(model, tokens(VOCAB, 2, 12))


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
    handle = mixers(model)[0].register_forward_hook(lambda *given: None)
    assert not decoding.fits(model, one, state)
    handle.remove()
    others: list[dict[str, Any]] = [
        {"conv": 4}, {"canon": "A"}, {"value_residual": True}, {"kernel": "classic"},
        {"radius_mode": "soft"}, {"far_field": "blocks"},
    ]  # fmt: skip
    for given in others:
        assert not decoding.fits(built(**given), one, state), given
    model.double()
    assert not decoding.fits(model, one, model.init_state())
