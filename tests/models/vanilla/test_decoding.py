"""The quick step of the modern recipe against the backbone's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from holo_cli import registry
from holo_cli.config.resolve import resolve
from holo_cli.inference.generation.weights import quantise
from holo_cli.models.vanilla import decoding
from holo_cli.models.vanilla.model import Modern
from tests.models.quick_steps import check_state_is_a_value, counted, decoded

SHAPE = ("model.layers=3", "model.width=96", "model.heads=4", "model.context=80")


def built(*sets: str) -> Modern:
    torch.manual_seed(2)
    config = resolve("vanilla", sets=(*SHAPE, *sets)).model.model_copy(update={"vocab_size": 90})
    model = registry.build_model("vanilla", config).eval()
    assert isinstance(model, Modern)
    for parameter in model.parameters():
        if not parameter.any():  # output matrices and gains start at zero
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "sets", [(), ("model.query_gain=false",), ("model.tied=false", "model.rope_fraction=0.5")]
)
def test_quick_steps_are_the_same_function(
    rows: int, sets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = built(*sets), torch.randint(90, (rows, 75))
    slow = decoded(model, tokens, quick=False)
    calls = counted(monkeypatch, decoding)
    quick = decoded(model, tokens, quick=True)
    assert len(calls) == 72
    assert torch.allclose(quick, slow, atol=2e-5)
    with torch.no_grad():
        assert torch.allclose(quick, model(tokens), atol=2e-5)


def test_a_state_can_be_continued_twice() -> None:
    check_state_is_a_value(built(), torch.randint(90, (1, 9)))


def test_weights_in_int8_take_quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = built("model.width=256"), torch.randint(90, (1, 20))
    assert quantise(model) == 4 * 3 + 1
    slow, quick = decoded(model, tokens, quick=False), decoded(model, tokens, quick=True)
    assert (quick - slow).std() < 0.02 * slow.std()  # rounding to bfloat16 at other places


@pytest.mark.parametrize(
    "sets",
    [
        "model.conv=4",
        "model.canon=A",
        "model.value_residual=true",
        "model.value_mass=true",
        "model.canon=D",
    ],
)
def test_models_with_more_to_their_blocks_do_not(sets: str) -> None:
    model = built(sets)
    with torch.no_grad():
        state = model.init_state()
        assert not decoding.fits(model, torch.zeros(1, 1, dtype=torch.long), state)


def test_what_does_not_fit() -> None:
    model, one = built(), torch.zeros(1, 1, dtype=torch.long)
    state = model.init_state()
    assert not decoding.fits(model, one, state)  # gradients
    with torch.no_grad():
        assert decoding.fits(model, one, state)
        assert not decoding.fits(model, one.expand(1, 2), state)
        with torch.autocast("cpu", torch.bfloat16):
            assert not decoding.fits(model, one, state)
        handle = model.layers()[1].mlp.register_forward_hook(lambda *given: None)
        assert not decoding.fits(model, one, state)
        handle.remove()
        model.double()
        assert not decoding.fits(model, one, state)
