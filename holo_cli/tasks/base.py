"""The interface of synthetic tasks: a vocabulary, and sequences from a random generator.

Legend: B rows, T positions. Examples in the tasks' docstrings show one row: `x` are the input
tokens, `y` the target at each position, and a dot is a position that is not scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.batches import IGNORE
from holo_cli.errors import UsageError
from holo_cli.wording import counted

TokenArray = NDArray[np.int64]
Allowed = NDArray[np.bool_]


class TaskCase(NamedTuple):
    """One difficulty: T positions, and the number of items to remember."""

    length: int
    items: int


@dataclass(frozen=True)
class Task(ABC):
    """A task over `vocab_size` tokens. Generators in the same state give the same rows."""

    vocab_size: int

    title: ClassVar[str]
    least_vocab: ClassVar[int]  # minimum vocabulary
    asks: ClassVar[str]  # one sentence: what a model has to predict
    # whether a decoder predicts the answers from the last hidden state, see `recall/compressor.py`
    decoded: ClassVar[bool] = False

    @abstractmethod
    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        """Write one row into `x` (T,), which is all zeros, and `y` (T,), which is all IGNORE."""

    @abstractmethod
    def least_length(self, items: int) -> int:
        """The shortest T for this number of items."""

    @abstractmethod
    def most_items(self) -> int:
        """The maximum number of items with this vocabulary."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The accuracy of a random guess among the possible answers."""

    def check(self, case: TaskCase) -> None:
        """Raises UsageError for a case that this task cannot generate."""
        if self.vocab_size < self.least_vocab:
            raise UsageError(
                f"{self.title} needs at least {self.least_vocab} tokens of vocabulary, not "
                f"{self.vocab_size}.",
                next_step=f"Set `vocab` of the task to {self.least_vocab} or more.",
            )
        if case.items < 1 or case.items > self.most_items():
            raise UsageError(
                f"{self.title} with {self.vocab_size} tokens has from 1 to {self.most_items()} "
                f"items, not {case.items}."
            )
        if case.length < self.least_length(case.items):
            raise UsageError(
                f"{self.title} with {counted(case.items, 'item')} needs at least "
                f"{counted(self.least_length(case.items), 'position')}, not {case.length}."
            )

    def sample(
        self, rng: np.random.Generator, rows: int, case: TaskCase
    ) -> tuple[TokenArray, TokenArray]:
        """x and y, each (rows, T) int64; y is IGNORE at positions that are not scored."""
        x = np.zeros((rows, case.length), dtype=np.int64)
        y = np.full((rows, case.length), IGNORE, dtype=np.int64)
        for row in range(rows):
            self.fill(rng, x[row], y[row], case.items)
        return x, y

    def graded(
        self, rng: np.random.Generator, rows: int, case: TaskCase
    ) -> tuple[TokenArray, TokenArray, Allowed | None]:
        """x and y as from `sample`, and the answers that count as correct in a test.

        These are (rows, T, vocab_size), true for a correct answer; None: only y is correct.
        """
        return *self.sample(rng, rows, case), None
