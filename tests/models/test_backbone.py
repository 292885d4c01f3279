"""Switches of the backbone, for every model whose parts have the place.

Each model with all of its switches computes what its reference does, in training and in decoding,
depends on no later token, and learns the parameters they add.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli import registry
from holo_cli.config.model_schema import BackboneConfig
from holo_cli.errors import UsageError
from holo_cli.models import oracle
from holo_cli.models.base import LanguageModel

SHAPE: dict[str, Any] = {"vocab_size": 23, "layers": 2, "heads": 2, "width": 16, "context": 32}
OWN: dict[str, dict[str, Any]] = {
    "holographic": {"experts": 1},
    "brain-v2": {"attention_every": 2, "attention_share": 0.5},
}


def switched(name: str) -> dict[str, Any]:
    """Every switch that the model has."""
    kind = registry.config_class(name)
    if not issubclass(kind, BackboneConfig):
        return {}
    values = {"value_residual": True, "value_embedding": True} if kind.takes_values else {}
    return {"canon": kind.canon_places, **values}


def build(name: str, **more: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = registry.config_class(name)(**{**SHAPE, **OWN.get(name, {}), **more})
    model = registry.build_model(name, config).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


@pytest.mark.parametrize("name", registry.model_names())
def test_decoding_equals_training_with_every_switch(name: str) -> None:
    model = build(name, **switched(name))
    tokens = torch.randint(0, 23, (2, 17))
    with torch.no_grad():
        whole = model(tokens)
        for split in (1, 6, 16):
            state = model.init_state(2)
            first, state = model.step(tokens[:, :split], state)
            pieces = [first]
            for t in range(split, 17):
                piece, state = model.step(tokens[:, t : t + 1], state)
                pieces.append(piece)
            torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-9)
        # a state's size is what is said of it (selected tokens: at most)
        changed = tokens.clone()
        changed[:, 9:] = (changed[:, 9:] + 1) % 23
        torch.testing.assert_close(model(changed)[:, :9], whole[:, :9], rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", registry.model_names())
def test_every_switch_changes_the_model_and_is_learned(name: str) -> None:
    plain = {n for n, _ in build(name).named_parameters()}
    model = build(name, **switched(name)).train()
    added = {n: p for n, p in model.named_parameters() if n not in plain}
    assert any("canon" in n for n in added)
    hidden, aux = model.hidden(torch.randint(0, 23, (2, 16)))
    (model.head(hidden).logsumexp(-1).mean() + sum(aux.values())).backward()
    for parameter, p in added.items():
        assert p.grad is not None, parameter
        assert p.grad.abs().sum() > 0, parameter
    described = model.describe()
    assert described.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", registry.model_names())
def test_every_switch_computes_what_the_reference_does(name: str) -> None:
    model = build(name, **switched(name))
    reference = registry.part(name, "reference")
    tokens = torch.randint(0, 23, (1, 9))
    grads = []
    for logits in (model(tokens), oracle.logits(reference, model, tokens)):
        model.zero_grad()
        logits.pow(2).sum().backward()
        grads.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9)


def test_gradient_checkpoints_change_nothing() -> None:
    model = build("vanilla", **switched("vanilla")).train()
    tokens = torch.randint(0, 23, (2, 16))
    grads = []
    for on in (False, True):
        model.grad_checkpoint = on
        model.zero_grad()
        model(tokens).logsumexp(-1).mean().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_place_that_a_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no place B"):
        registry.config_class("ngt")(**SHAPE, canon="AB")
    with pytest.raises(ValueError, match="letters of ABCD in this order"):
        registry.config_class("vanilla")(**SHAPE, canon="BA")
    config = registry.config_class("holographic")(**SHAPE, canon="D", experts=3)
    with pytest.raises(UsageError, match="layer 1 has none"):
        registry.build_model("holographic", config)


def test_a_stored_config_from_before_a_key_means_what_was_computed_then() -> None:
    kind = registry.config_class("vanilla")
    stored = kind(**SHAPE).model_dump(mode="json")
    assert stored.pop("query_gain") is True
    assert kind.from_stored(stored).query_gain is False  # type: ignore[attr-defined]
    assert kind.from_stored(stored | {"query_gain": True}).query_gain  # type: ignore[attr-defined]


def test_keys_that_nothing_reads_are_known() -> None:
    def unread(name: str, **keys: Any) -> frozenset[str]:
        return registry.config_class(name)(**SHAPE, **keys).without_effect()

    assert unread("vanilla") == {"gelu", "kv_heads", "norm_eps", "qkv_bias"}
    assert unread("ngt") == {"query_gain"}
    assert unread("holographic") == {"query_gain"}
    assert unread("holographic", blend=True) == frozenset()
    assert unread("brain-v2", attention_every=0) == {"query_gain", "attention_calibrated"}
    assert "conv" in unread("vanilla", recipe="classic")
    assert "gelu" not in unread("vanilla", recipe="classic")
