"""What the tests of quick decoding steps share: stepping both ways, and states that continue."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.inference.generation.weights import quantise, relay
from holo_cli.models.base import LanguageModel

QUICK = {"atol": 2e-5, "rtol": 0.0}  # a quick step differs by rounding alone


@torch.no_grad()
def wake(model: torch.nn.Module, seed: int = 1) -> None:
    """Nothing is left at the zeros of initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        scale = 0.3 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.1
        p.add_(scale * torch.randn(p.shape, generator=generator))


def tokens(vocab: int, rows: int, length: int) -> Tensor:
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def decoded(model: LanguageModel, ids: Tensor, quick: bool) -> Tensor:
    """Logits of ids (B, T): three tokens at once, then one by one."""
    model.quick_steps = quick  # type: ignore[assignment]
    logits, state = model.step(ids[:, :3], model.init_state(len(ids)))
    found = [logits]
    for at in range(3, ids.shape[1]):
        logits, state = model.step(ids[:, at : at + 1], state)
        found.append(logits)
    return torch.cat(found, 1)


def counted(monkeypatch: pytest.MonkeyPatch, decoding: ModuleType) -> list[int]:
    """A list that grows by one with each quick step of a model's `decoding`."""
    calls: list[int] = []
    real = decoding.step_hidden

    def step_hidden(*args: Any) -> Any:
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(decoding, "step_hidden", step_hidden)
    return calls


@torch.no_grad()
def check_state_is_a_value(model: LanguageModel, ids: Tensor) -> None:
    """A state can be continued twice, and what follows is that of the whole text; ids (1, 9)."""
    _, state = model.step(ids[:, :8], model.init_state())
    first, after = model.step(ids[:, 8:], state)
    other, _ = model.step((ids[:, 8:] + 1) % model.config.vocab_size, state)
    again, _ = model.step(ids[:, 8:], state)
    later, _ = model.step(ids[:, :1], after)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    whole = model(torch.cat((ids, ids[:, :1]), 1))
    torch.testing.assert_close(later[:, 0], whole[:, -1], **QUICK)


@torch.no_grad()
def check_joined_weights(built: Callable[[], LanguageModel], ids: Tensor) -> None:
    """What is multiplied by is what the parameters hold: trained, loaded, copied or cast after the
    matrices were joined."""
    model = built()
    relay(model)
    wake(model, seed=3)  # in place, as an optimizer does
    other = built()
    relay(other)
    other.load_state_dict(model.state_dict())
    twin = copy.deepcopy(model)
    wake(twin, seed=4)
    cast = copy.deepcopy(model).double().float()
    for one in (model, other, twin, cast):
        torch.testing.assert_close(decoded(one, ids, True), decoded(one, ids, False), **QUICK)
    assert not torch.equal(decoded(twin, ids, True), decoded(model, ids, True))


def check_eight_bits(model: LanguageModel, ids: Tensor) -> None:
    """A model whose matrices were joined before it got eight-bit weights computes with these."""
    relay(model)
    plain = decoded(model, ids, True)
    assert quantise(model) > 0
    quick = decoded(model, ids, True)
    torch.testing.assert_close(quick, decoded(model, ids, False), atol=0.02, rtol=0)
    assert not torch.equal(quick, plain)
