"""Training that begins with every unit a winner and ends with a few."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.models.brain_v1.model import Model

UNITS = 80


def make(**given: Any) -> Model:
    torch.manual_seed(0)
    shape = {"vocab_size": 11, "layers": 1, "heads": 2, "width": 16, "context": 8}
    model = Model(Config(**{**shape, "sparsity": "kwta", "mlp_ratio": 5.0, **given}))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def part(model: Model) -> KWTA:
    mlp = model.brain_blocks()[0].mlp
    assert isinstance(mlp, KWTA)
    return mlp


def fired(model: Model) -> int:
    """The most units that fire for a token in training."""
    mlp, seen = part(model.train()), []

    def watch(module: Any, inputs: tuple[Tensor, ...]) -> None:
        u = mlp.up(inputs[0].flatten(0, 1))
        chosen = mlp.choose(u, None, mlp.training_k)
        seen.append(torch.zeros_like(u).scatter_(1, chosen, 1.0).sum(1).max().item())

    handle = mlp.register_forward_pre_hook(watch)
    model.hidden(torch.arange(8)[None])
    handle.remove()
    return int(seen[0])


def test_winners_fall_from_all_units_to_k() -> None:
    model = make(dense_start=0.5)
    counts = []
    for share in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0):
        model.on_progress(share)
        counts.append(fired(model))
    assert counts[0] == UNITS
    # geometrically: halfway to 4 of 80 is sqrt(80 * 4)
    assert counts[2] == round((UNITS * 4) ** 0.5)
    assert counts == sorted(counts, reverse=True)
    assert counts[3:] == [4, 4, 4]


def test_the_beginning_is_the_dense_twin() -> None:
    sparse, dense = make(dense_start=0.5, balance=0.0), make(sparsity="dense")
    dense.load_state_dict(sparse.state_dict())
    tokens = torch.arange(8)[None]
    sparse.on_progress(0.0)
    assert torch.equal(sparse.train().hidden(tokens).x, dense.train().hidden(tokens).x)
    sparse.on_progress(1.0)
    assert not torch.equal(sparse.hidden(tokens).x, dense.hidden(tokens).x)


def test_evaluation_has_k_winners_from_the_start() -> None:
    model, plain = make(dense_start=0.5), make()
    tokens = torch.arange(8)[None]
    model.on_progress(0.0)
    assert torch.equal(model.eval().hidden(tokens).x, plain.eval().hidden(tokens).x)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_without_it_nothing_changes(share: float) -> None:
    model = make()
    model.on_progress(share)
    assert fired(model) == 4


def test_it_is_for_free_winners() -> None:
    with pytest.raises(ValueError, match=r"dense_start.*kwta"):
        Config(sparsity="columns", dense_start=0.5)
