"""The quick step of the plates against the backbone's own, and the matrix it multiplies by."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.inference.generation.weights import quantise, relay
from holo_cli.layers.joined import joined_states, row_of
from holo_cli.models.holographic import decoding
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.mixer import Holographic
from holo_cli.models.holographic.model import Model

VOCAB = 53


@torch.no_grad()
def wake(model: Model, seed: int = 1) -> None:
    """Nothing is left at the zeros of initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        scale = 0.3 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.1
        p.add_(scale * torch.randn(p.shape, generator=generator))


def built(**given: Any) -> Model:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "layers": 2, "heads": 2, "width": 32, "context": 64}
    model = Model(Config(**{**shape, **given}))
    wake(model)
    return model.eval()


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


def mixers(model: Model) -> list[Holographic]:
    return [b.mixer for b in model.layers() if isinstance(b.mixer, Holographic)]


@torch.no_grad()
def decoded(model: Model, ids: Tensor, quick: bool) -> Tensor:
    model.quick_steps = quick
    logits, state = model.step(ids[:, :3], model.init_state(len(ids)))
    found = [logits]
    for at in range(3, ids.shape[1]):
        logits, state = model.step(ids[:, at : at + 1], state)
        found.append(logits)
    return torch.cat(found, 1)


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
    model, ids = built(**given), tokens(3, 40)
    slow = decoded(model, ids, quick=False)
    calls: list[int] = []
    real = decoding.step_hidden

    def counted(*args: Any) -> Any:
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(decoding, "step_hidden", counted)
    torch.testing.assert_close(decoded(model, ids, quick=True), slow, atol=2e-5, rtol=0)
    assert len(calls) == 37
    for mixer in mixers(model):
        mixer.store_by_columns()
        assert mixer.joined is not None
        assert mixer.joined.holds(mixer.readers())
    torch.testing.assert_close(decoded(model, ids, quick=True), slow, atol=2e-5, rtol=0)
    torch.testing.assert_close(decoded(model, ids, quick=False), slow, atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_state_can_be_continued_twice() -> None:
    model, ids = built(), tokens(1, 9)
    _, state = model.step(ids[:, :8], model.init_state())
    first, after = model.step(ids[:, 8:], state)
    other, _ = model.step((ids[:, 8:] + 1) % VOCAB, state)
    again, _ = model.step(ids[:, 8:], state)
    later, _ = model.step(ids[:, :1], after)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    whole = model(torch.cat((ids, ids[:, :1]), 1))
    torch.testing.assert_close(later[:, 0], whole[:, -1], atol=2e-5, rtol=0)


@torch.no_grad()
def test_rows_at_different_positions_are_stepped_together() -> None:
    model, ids = built(), tokens(2, 9)
    states = [
        model.step(ids[n : n + 1, :length], model.init_state())[1] for n, length in ((0, 3), (1, 7))
    ]
    one = ids[:, 8:]
    both = joined_states(states)
    assert decoding.fits(model, one)
    logits, after = model.step(one, both)
    for n, state in enumerate(states):
        alone, expected = model.step(one[n : n + 1], state)
        torch.testing.assert_close(logits[n : n + 1], alone, atol=2e-5, rtol=0)
        assert row_of(after, n).position == expected.position


@torch.no_grad()
def test_what_is_multiplied_by_is_what_the_parameters_hold() -> None:
    """Trained, loaded, copied, cast or in eight bits after the matrices were joined."""
    model, ids = built(), tokens(2, 20)
    relay(model)
    wake(model, seed=3)  # in place, as an optimizer does
    other = built()
    relay(other)
    other.load_state_dict(model.state_dict())
    twin = copy.deepcopy(model)
    wake(twin, seed=4)
    cast = copy.deepcopy(model).double().float()
    for one in (model, other, twin, cast):
        quick = decoded(one, ids, quick=True)
        torch.testing.assert_close(quick, decoded(one, ids, quick=False), atol=2e-5, rtol=0)
    assert not torch.equal(decoded(twin, ids, quick=True), decoded(model, ids, quick=True))


def test_eight_bits_after_joining() -> None:
    model, ids = built(width=128, heads=4), tokens(2, 12)
    relay(model)
    plain = decoded(model, ids, quick=True)
    assert quantise(model) > 0
    assert all(not m.joined.holds(m.readers()) for m in mixers(model) if m.joined is not None)
    quick = decoded(model, ids, quick=True)
    torch.testing.assert_close(quick, decoded(model, ids, quick=False), atol=0.02, rtol=0)
    assert not torch.equal(quick, plain)


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
