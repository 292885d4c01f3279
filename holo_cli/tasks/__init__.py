"""Synthetic tasks with known answers that depend on earlier tokens.

A task generates sequences in which the answer at some positions follows only from earlier tokens;
other positions are not scored. A new task is a class in this folder and a line in `TASKS`.

The six tasks of MAD (Poli et al. 2024, arXiv 2403.17844) are `in-context-recall`, `fuzzy-recall`,
`noisy-recall`, `selective-copying`, `compression` and `memorisation`.
"""

from __future__ import annotations

from holo_cli.tasks.automata import Automata
from holo_cli.tasks.base import Task, TaskCase
from holo_cli.tasks.copying import Compression, Copying, SelectiveCopying
from holo_cli.tasks.in_context import FuzzyRecall, InContextRecall, NoisyRecall
from holo_cli.tasks.induction import Induction
from holo_cli.tasks.memorisation import Memorisation
from holo_cli.tasks.mqar import AssociativeRecall
from holo_cli.tasks.multihop import MultiHop
from holo_cli.tasks.names import NameBinding, NameRecall
from holo_cli.tasks.needle import EnglishNeedle, KoreanNeedle

TASKS: dict[str, type[Task]] = {
    "mqar": AssociativeRecall,
    "induction": Induction,
    "copying": Copying,
    "selective-copying": SelectiveCopying,
    "names": NameBinding,
    "name-recall": NameRecall,
    "in-context-recall": InContextRecall,
    "fuzzy-recall": FuzzyRecall,
    "noisy-recall": NoisyRecall,
    "compression": Compression,
    "memorisation": Memorisation,
    "automata": Automata,
    "multi-hop": MultiHop,
    "needle-en": EnglishNeedle,
    "needle-ko": KoreanNeedle,
}

__all__ = ["TASKS", "Task", "TaskCase"]
