"""The quick step of the plates against the backbone's own, and the matrix it multiplies by."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.layers.joined import joined_states, row_of
from holo_cli.models.holographic import decoding
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.mixer import Holographic
from holo_cli.models.holographic.model import Model
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


def mixers(model: Model) -> list[Holographic]:
    return [b.mixer for b in model.layers() if isinstance(b.mixer, Holographic)]


FORMS: list[dict[str, Any]] = [
    {},
    {"phases": "gravity", "plates": 3, "phase_coords": 5, "rope_fraction": 0.4},
    {"rope_fraction": 0.0},
    {"phases": "learned"},
    {"phases": "learned", "plates": 2, "rope_fraction": 0.5, "conv": 4},
]


@pytest.mark.parametrize("given", FORMS, ids=str)
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
        assert mixer.joined.holds(mixer.readers())
    torch.testing.assert_close(decoded(model, ids, quick=True), slow, **QUICK)
    torch.testing.assert_close(decoded(model, ids, quick=False), slow, **QUICK)


def test_a_state_can_be_continued_twice() -> None:
    check_state_is_a_value(built(), tokens(VOCAB, 1, 9))


@torch.no_grad()
def test_rows_at_different_positions_are_stepped_together() -> None:
    model, ids = built(), tokens(VOCAB, 2, 9)
    states = [
        model.step(ids[n : n + 1, :length], model.init_state())[1] for n, length in ((0, 3), (1, 7))
    ]
    one = ids[:, 8:]
    both = joined_states(states)
    assert decoding.fits(model, one)
    logits, after = model.step(one, both)
    for n, state in enumerate(states):
        alone, expected = model.step(one[n : n + 1], state)
        torch.testing.assert_close(logits[n : n + 1], alone, **QUICK)
        assert row_of(after, n).position == expected.position


def test_what_is_multiplied_by_is_what_the_parameters_hold() -> None:
    check_joined_weights(built, tokens(VOCAB, 2, 20))


def test_eight_bits_after_joining() -> None:
    model = built(width=128, heads=4)
    check_eight_bits(model, tokens(VOCAB, 2, 12))
    assert all(not m.joined.holds(m.readers()) for m in mixers(model) if m.joined is not None)


@torch.no_grad()
def test_what_does_not_fit() -> None:
    model, one = built(), torch.zeros(1, 1, dtype=torch.long)
    assert decoding.fits(model, one)
    assert not decoding.fits(model, one.expand(1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert not decoding.fits(model, one)
    with torch.enable_grad():
        assert not decoding.fits(model, one)
    memory = mixers(model)[0].memory
    handle = memory.register_forward_hook(lambda *given: None)
    assert not decoding.fits(model, one)
    handle.remove()
    others: list[dict[str, Any]] = [
        {"canon": "A"}, {"value_residual": True}, {"mixer": "fftconv"}, {"mixer": "classic"},
        {"binding": "hrr"}, {"blend": True}, {"topology": True}, {"attention_every": 2},
        {"experts": 2},
    ]  # fmt: skip
    for given in others:
        assert not decoding.fits(built(**given), one), given
    model.double()
    assert not decoding.fits(model, one)
