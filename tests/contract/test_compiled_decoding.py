"""A step of decoding is one graph for all positions, and computes what the step as it is does."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from holo_cli import registry
from holo_cli.check.cases import Case, cases_of, random_tokens
from holo_cli.errors import UsageError
from holo_cli.inference.generation.compiled_step import (
    CompiledStep,
    check_compiling,
    room_for,
)
from holo_cli.inference.generation.engine import Engine
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.layers.static import buffers

# Beside each model's first case those whose state or step has a form of its own.
MORE = {
    "brain-v1": {"kwta", "adapters"},
    "brain-v2": {"attention", "selective-ponder", "suffix"},
    "holographic": {"plates", "features", "fftconv-blend"},
    "mamba": {"mamba-3"},
    "ngt": {"gravity-learned", "lorentz"},
    "vanilla": {"modern-switches", "modern-suffix", "classic", "llama-options"},
}
REFUSED = {
    "brain-v1:dendrites": "model.attention_top",
    "brain-v1:exits": "exit threshold of 0.02",
    "brain-v1:exits-learned": "exit threshold of 0.2",
    "holographic:blend-topology": "model.topology",
    "ngt:gravity-soft": "model.radius_mode",
    "ngt:gravity-hard": "model.radius_mode",
    "ngt:lorentz-hard": "model.radius_mode",
    "ngt:gravity-blocks": "model.far_field",
    "ngt:gravity-bodies": "model.far_field",
    "ngt:classic": "model.kernel = classic",
}
ALL = [case for name in registry.model_names() for case in cases_of(name)]
CHOSEN = [
    case
    for name in registry.model_names()
    for number, case in enumerate(cases_of(name))
    if number == 0 or case.label in MORE.get(name, ())
]
PREFILLED, READ = 7, 40


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: f"{case.name}:{case.label}")
def test_one_graph_serves_all_positions_and_computes_the_same(case: Case) -> None:
    model = case.build()
    tokens = random_tokens(2, READ + 1)
    engine = Engine(model)
    torch._dynamo.reset()
    counters.clear()
    _, _, state = engine.advance(tokens[:, :PREFILLED], None)
    step = CompiledStep(
        model, state, room_for(model, READ + 1), lambda: engine.mode(single=True), "eager"
    )
    step.take(engine, state)
    places = [buffer.data_ptr() for buffer in buffers(step._state)]
    for n in range(PREFILLED, READ):
        logits, hidden = step.read(tokens[:, n : n + 1])
        expected, expected_hidden, state = engine.advance(tokens[:, n : n + 1], state)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(hidden, expected_hidden, rtol=1e-9, atol=1e-9)
    assert counters["stats"]["unique_graphs"] == 1
    assert [buffer.data_ptr() for buffer in buffers(step._state)] == places
    last = tokens[:, READ:]  # what is taken out of the buffers is a state like any other
    found, _, _ = engine.advance(last, step.value())
    torch.testing.assert_close(found, engine.advance(last, state)[0], rtol=1e-9, atol=1e-9)


def test_which_forms_cannot_and_why() -> None:
    models = {f"{case.name}:{case.label}": case.build() for case in ALL}
    obstacles = {name: model.step_obstacle() for name, model in models.items()}
    found = {name: reason for name, reason in obstacles.items() if reason is not None}
    assert found.keys() == REFUSED.keys()
    for name, reason in REFUSED.items():
        assert reason in found[name]
    says = r"^This model cannot decode compiled \(--compile\): .*model.topology"
    with pytest.raises(UsageError, match=says):
        check_compiling(models["holographic:blend-topology"], SamplingConfig())
