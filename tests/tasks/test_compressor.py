"""The decoder behind the task `compression` sees the last hidden state and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from holo_cli.bench.recall.plan import named_plan, resolve_run
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.models.base import Hidden, LanguageModel
from holo_cli.registry import build_model
from holo_cli.tasks import TaskCase
from holo_cli.tasks.compressor import Compressor
from holo_cli.tasks.spec import TaskSpec
from holo_cli.tasks.train import train_on_task
from holo_cli.training.optim import Optimizer


def inner(**settings: Any) -> LanguageModel:
    plan = named_plan("tiny")
    spec = TaskSpec("compression", 8, (TaskCase(6, 4),))
    resolved = resolve_run(plan, plan.entries[0], spec, 1.0, 1)
    return build_model("vanilla", resolved.replace(settings).model)


def test_only_the_last_hidden_state_counts() -> None:
    torch.manual_seed(0)
    model = Compressor.of(inner(), 4)
    tokens = torch.randint(2, 8, (3, 6))
    x = model.hidden(tokens).x
    assert x.shape == (3, 6, 32)
    assert (x[:, 4:] == 0).all()  # beyond the string
    kept = model.inner.hidden

    def only_last(tokens: torch.Tensor) -> Hidden:
        found, aux = kept(tokens)
        return Hidden(torch.cat([torch.randn_like(found[:, :-1]), found[:, -1:]], dim=1), aux)

    model.inner.hidden = only_last  # type: ignore[method-assign]
    assert torch.equal(model.hidden(tokens).x, x)
    assert model.state_bytes(9) == model.inner.state_bytes(9)
    assert model.describe() == model.inner.describe()


def test_every_parameter_is_trained_once() -> None:
    model = Compressor.of(inner(), 4)
    optimizer = Optimizer(model, TrainingConfig(), fast_bf16=False)
    named = dict(model.named_parameters())
    assert len(named) == len(list(model.inner.parameters())) + len(list(model.decoder.parameters()))
    muon, rest = (
        {name for group in part.param_groups for name in group["param_names"]}
        for part in (optimizer.parts["muon"], optimizer.adam)
    )
    assert muon | rest == set(named)
    assert not muon & rest
    assert muon == {f"inner.{name}" for name in model.inner.matrices()}


def test_a_grown_model_keeps_its_decoder() -> None:
    plan = named_plan("tiny")
    spec = TaskSpec("compression", 8, (TaskCase(6, 4),))
    entry = replace(plan.entries[0], model="brain-v1", settings={"model.growth": [1],
                    "model.layers": 2})  # fmt: skip
    shape = resolve_run(plan, entry, spec, 1.0, 1).model
    small = Compressor.of(build_model("brain-v1", shape.at_depth(1)), 4)
    big, names = small.grown(2)
    assert isinstance(big, Compressor)
    assert big.decoder is small.decoder
    assert names.keys() == dict(big.named_parameters()).keys()
    old = dict(small.named_parameters())
    assert {name for name in names.values() if name is not None} <= old.keys()


def test_a_short_string_is_learned() -> None:
    """Two tokens of six in a vector of 32 numbers: far above a chance of one in six."""
    plan = named_plan("tiny")
    spec = TaskSpec("compression", 8, (TaskCase(4, 2),))
    resolved = resolve_run(plan, plan.entries[0], spec, 1.0, 1).replace(
        {"training.steps": 250, "training.batch_size": 16, "training.dtype": "float32"}
    )
    job = {"resolved": resolved.to_dict(), "spec": spec.to_dict(), "sequences": 64, "solved": 0.0}
    assert train_on_task(job, lambda event: None)["cases"][0]["accuracy"] > 0.6
