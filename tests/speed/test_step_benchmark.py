"""The probes: what is measured is the training step, of a model as it is in the end."""

from __future__ import annotations

from holo_cli.speed.measurements import resolve_entries
from holo_cli.speed.step_benchmark import TrainingBenchmark


def test_a_model_that_grows_is_measured_whole() -> None:
    subject = resolve_entries(
        [], ["b=brain-v1,activity=0.25,layers=2,width=32,heads=2"],
        context=8, batch_size=1, vocab_size=16, dtype="float32",
    )[0]  # fmt: skip
    resolved = subject.resolved.replace({"model.growth": [1]})
    assert [stage.layers for stage in resolved.model.stages()] == [1, 2]
    probe = TrainingBenchmark(resolved)
    probe.warm(1)
    assert probe.measure()["steps"] == 1
    assert probe.trainer.model.config.layers == 2
