"""A small plan of recall, and the settings of one of its runs."""

from __future__ import annotations

from typing import Any

from holo_cli.bench.recall.plan import RecallPlan, resolve_run
from holo_cli.bench.recall.run import FIRST_SEED
from holo_cli.config.resolve import Resolved

PLAN = """
sequences = 64
[base.model]
layers = 2
heads = 2
width = 32
conv = 4
soft_cap = 0
[base.training]
steps = 60
batch_size = 16
warmup = 5
log_every = 20
dtype = "float32"
[entry.attention]
model = "vanilla"
[entry.textbook]
model = "vanilla"
recipe = "classic"
[task.mqar]
vocab = 16
train = [[16, 1], [20, 2]]
test = [[32, 2]]
"""


def job(plan: RecallPlan, entry: int = 0, **changes: Any) -> tuple[Resolved, dict[str, Any]]:
    spec = plan.tasks[0]
    resolved = resolve_run(plan, plan.entries[entry], spec, 1.0, FIRST_SEED).replace(changes)
    asked = {"sequences": plan.sequences, "solved": plan.solved}
    return resolved, {"resolved": resolved.to_dict(), "spec": spec.to_dict(), **asked}
