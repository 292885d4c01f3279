"""Growing deeper: nothing changes at the moment of growth, or the old layers are stacked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.models.brain_v1.config import third
from holo_cli.models.brain_v1.growth import deeper_model, kept_and_new
from tests.models.brain_v1.conftest import make_model, make_tokens

OPTIONS: list[dict[str, Any]] = [
    {},
    {"sparsity": "kwta"},
    {"dendrites": 2, "adapters": 4, "language_tokens": (3, 7), "conv": 4},
    {"depth_schedule": True, "sparsity": "both"},
]


@pytest.mark.parametrize("given", OPTIONS)
@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 4), (2, 7), (4, 5)])
def test_identity_growth_leaves_the_logits_as_they_are(
    given: dict[str, Any], old: int, new: int
) -> None:
    model, tokens = make_model(layers=old, **given), make_tokens()
    before = {name: p.clone() for name, p in model.named_parameters()}
    grown, origin = deeper_model(model, new, "identity")
    assert grown.config.layers == new == len(grown.blocks)
    assert torch.equal(grown(tokens), model(tokens))
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
    assert origin.keys() == dict(grown.named_parameters()).keys()
    kept = [was for was in origin.values() if was is not None]
    assert sorted(kept) == sorted(before), "every old parameter goes on as exactly one new one"


def test_new_layers_learn() -> None:
    """They write nothing at first, and their last matrices have a gradient."""
    grown, origin = deeper_model(make_model(layers=2), 4, "identity")
    grown.hidden(make_tokens()).x.sin().sum().backward()
    new = [name for name, was in origin.items() if was is None]
    assert new
    for name in new:
        p = dict(grown.named_parameters())[name]
        if name.endswith(("mixer.out.weight", "mlp.down.weight")):
            assert (p == 0).all()
            assert p.grad is not None
            assert p.grad.abs().sum() > 0


def test_stacking_copies_layers_and_takes_their_moments_along() -> None:
    model = make_model(layers=2)
    grown, origin = deeper_model(model, 5, "copy")
    before = dict(model.named_parameters())
    for name, p in grown.named_parameters():
        was = origin[name]
        assert was is not None
        assert torch.equal(p, before[was]), name
        if name.startswith("blocks."):
            number, rest = name.split(".", 2)[1:]
            assert was == f"blocks.{int(number) % 2}.{rest}"
    assert not torch.equal(grown(make_tokens()), model(make_tokens()))


def test_old_layers_keep_their_order_and_their_third() -> None:
    for old in range(1, 13):
        for new in range(old + 1, 26):
            plan = kept_and_new(old, new)
            kept = [(place, layer) for place, (layer, is_old) in enumerate(plan) if is_old]
            assert [layer for _, layer in kept] == list(range(old))
            assert all(third(place, new) == third(layer, old) for place, layer in kept)


def test_growth_that_is_none_is_refused() -> None:
    model = make_model(layers=2)
    with pytest.raises(ValueError, match="cannot grow to 2"):
        deeper_model(model, 2, "identity")
    with pytest.raises(ValueError, match="identity or copy"):
        deeper_model(model, 3, "magic")


def test_a_model_grows_as_its_config_says() -> None:
    for how in ("identity", "copy"):
        model = make_model(layers=3, growth=(1, 2), growth_how=how)
        small = type(model)(model.config.at_depth(1)).double().eval()
        grown, origin = small.grown(2)
        assert grown.config == model.config.at_depth(2)
        assert (None in origin.values()) == (how == "identity")
