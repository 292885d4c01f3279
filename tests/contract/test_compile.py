"""torch.compile traces training of every model as one graph, and computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.check.cases import Case, cases_of, random_tokens
from holo_cli.models.base import LanguageModel

# Beside each model's first case those with a form of their own for compilers: routing, padding,
# transforms, losses of drawn layers.
MORE = {
    "brain-v1": {"kwta", "columns-more-kept", "exits-learned"},
    "brain-v2": {"added", "attention", "selective-ponder"},
    "gated-deltanet": {"gdn2"},
    "holographic": {"one-plate", "hrr", "fftconv", "classic"},
    "mamba": {"mamba-3"},
    "ngt": {"lorentz-hard", "gravity-learned"},
    "vanilla": {"modern-suffix", "classic"},
}


def chosen() -> list[Case]:
    return [
        case
        for name in registry.model_names()
        for number, case in enumerate(cases_of(name))
        if number == 0 or case.label in MORE.get(name, ())
    ]


def results(model: LanguageModel, hidden: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Hidden state, extra losses and all gradients of a step, with the same draws each time."""
    model.zero_grad()
    torch.manual_seed(0)
    out = hidden(tokens)
    weight = torch.linspace(-1, 1, out.x.numel(), dtype=out.x.dtype).view(out.x.shape)
    loss = (out.x * weight).sum()
    for term in out.aux.values():
        loss = loss + term
    loss.backward()
    found = {f"d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"hidden": out.x.detach(), **{k: v.detach() for k, v in out.aux.items()}, **found}


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("case", chosen(), ids=lambda case: f"{case.name}:{case.label}")
def test_training_compiles_as_one_graph_and_computes_the_same(case: Case) -> None:
    model = case.build().train()
    tokens = random_tokens(2, 16)
    torch._dynamo.reset()
    # the graph itself, without generating code for it, which would take a minute each
    compiled = torch.compile(model.hidden, fullgraph=True, backend="eager")
    plain, traced = results(model, model.hidden, tokens), results(model, compiled, tokens)
    assert plain.keys() == traced.keys()
    for name, value in plain.items():
        torch.testing.assert_close(
            traced[name],
            value,
            rtol=1e-9,
            atol=1e-11,
            msg=lambda text, name=name: f"{name}: {text}",
        )
