"""The time of a step, measured on fewer rows; and a first sample that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from holo_cli.config.resolve import resolve
from holo_cli.registry import build_model
from holo_cli.training import reports, step_time
from holo_cli.training.build import build_trainer
from holo_cli.training.step_time import measure_step, random_rows
from holo_cli.training.trainer import Trainer

SMALL = {
    "model.layers": 1, "model.width": 16, "model.heads": 2, "model.context": 16,
    "training.batch_size": 4, "training.steps": 6, "training.warmup": 0,
    "training.eval_every": 100, "training.device": "cpu", "training.dtype": "float32",
    "model.vocab_size": 50, "training.log_every": 100, "training.sample_tokens": 3,
}  # fmt: skip


def test_the_batch_scales_the_passes_and_not_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = step_time.random_rows

    def rows(vocab_size: int, context: int, number: int) -> Any:
        seen.append(number)
        return original(vocab_size, context, number)

    monkeypatch.setattr(step_time, "random_rows", rows)
    monkeypatch.setattr(step_time, "SECONDS", 0.05)
    before = torch.random.get_rng_state()
    config = resolve("vanilla", "tiny", flags=SMALL | {"training.grad_accum": 50}, env={})
    whole = measure_step(config, 50)
    monkeypatch.setattr(step_time, "WORK", 1.0)
    measure_step(config, 50)
    assert seen == [4, 1]  # of as little work as one row at the least
    tokens = 4 * 50 * 16
    assert whole.step > tokens * whole.evaluated_token * 3 * 0.99
    assert whole.run(10, 2, 100) == pytest.approx(10 * whole.step + 200 * whole.evaluated_token)
    assert torch.equal(before, torch.random.get_rng_state())


def trained(monkeypatch: pytest.MonkeyPatch, early: float) -> tuple[Trainer, list[Any]]:
    monkeypatch.setattr(reports, "EARLY_SAMPLE", early)
    events: list[Any] = []
    config = resolve("vanilla", "tiny", flags=SMALL, env={})
    torch.manual_seed(0)
    model = build_model("vanilla", config.model)
    made = build_trainer(
        replace(config), model, random_rows(50, 16, 4),
        events=events.append, sample=lambda model: f"{torch.rand(1).item() * 0:.0f} text",
    )  # fmt: skip
    monkeypatch.setattr(made, "evaluate", lambda: None)
    with torch.random.fork_rng():
        made.run()
    return made, [e for e in events if e["event"] == "sample"]


def test_a_first_sample_comes_long_before_the_first_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, samples = trained(monkeypatch, early=1e-9)
    assert [(e["step"], e["sample"]) for e in samples] == [(1, "0 text")]
    assert made.model.training
    plain, none = trained(monkeypatch, early=1e9)
    assert not none
    for a, b in zip(made.parameters, plain.parameters, strict=True):
        assert torch.equal(a, b)


def test_no_sample_when_an_evaluation_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SMALL, "training.eval_every", 2)
    made, samples = trained(monkeypatch, early=1e-9)
    made.progress.step, made.sampled = 7, False
    monkeypatch.setattr(reports, "EARLY_SAMPLE", 1e9)
    reports.early_sample(made)
    assert made.sampled
    assert len(samples) == 1
