"""Synthetic tasks with known answers: what a mixer can bring back from its past.

A task makes sequences in which some positions have an answer that only the past can tell; all other
positions are not scored. Adding one is a file here and a line in `TASKS`.
"""

from __future__ import annotations

from holo_cli.bench.tasks.base import Case, Task
from holo_cli.bench.tasks.copying import Copying
from holo_cli.bench.tasks.induction import Induction
from holo_cli.bench.tasks.mqar import AssociativeRecall
from holo_cli.bench.tasks.names import NameBinding
from holo_cli.bench.tasks.selective import SelectiveCopying

TASKS: dict[str, type[Task]] = {
    "mqar": AssociativeRecall,
    "induction": Induction,
    "copying": Copying,
    "selective-copying": SelectiveCopying,
    "names": NameBinding,
}

__all__ = ["TASKS", "Case", "Task"]
