"""A task with its settings, as a plan gives them and a row keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holo_cli.tasks import TASKS, Task, TaskCase
from holo_cli.tasks.needle import Needle


@dataclass(frozen=True)
class TaskSpec:
    """A task with its vocabulary, the cases to train on, and those only to test."""

    name: str
    vocab_size: int
    train: tuple[TaskCase, ...]
    test: tuple[TaskCase, ...] = ()
    depth: float | None = None  # of facts in a needle task, 0 to 1; None: anywhere

    @property
    def task(self) -> Task:
        kind = TASKS[self.name]
        return (
            kind(self.vocab_size, self.depth) if issubclass(kind, Needle) else kind(self.vocab_size)
        )

    @property
    def cases(self) -> tuple[TaskCase, ...]:
        """All tested cases, the trained ones first."""
        return (*self.train, *self.test)

    @property
    def context(self) -> int:
        """The longest trained length."""
        return max(case.length for case in self.train)

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "vocab_size": self.vocab_size,
            "train": [list(case) for case in self.train],
            "test": [list(case) for case in self.test],
            # absent where it is not set, so that rows of older versions keep their keys
            **({} if self.depth is None else {"depth": self.depth}),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TaskSpec:
        train, test = (tuple(TaskCase(*c) for c in stored[k]) for k in ("train", "test"))
        return cls(stored["task"], stored["vocab_size"], train, test, stored.get("depth"))
