"""The probes: what is measured is the training step, of a model as it is in the end."""

from __future__ import annotations

from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.speed.measurements import resolve_entries
from holo_cli.speed.step_benchmark import TrainingBenchmark


def test_a_model_that_changes_while_it_learns_is_measured_as_it_ends() -> None:
    """Not as it begins, where with `dense_start` every unit fires."""
    subject = resolve_entries(
        [], ["b=brain-v1,sparsity=kwta,activity=0.25,dense_start=0.5,layers=1,width=32,heads=2"],
        context=8, batch_size=1, vocab_size=16, dtype="float32",
    )[0]  # fmt: skip
    probe = TrainingBenchmark(subject.resolved)
    probe.warm(1)
    assert probe.measure()["steps"] == 1
    (free,) = (part for part in probe.model.modules() if isinstance(part, KWTA))
    assert free.training_k == free.k < free.units
