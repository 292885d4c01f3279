"""What every synthetic task is: a vocabulary, and sequences made from a random generator.

Legend: B rows, T positions. Drawings in the tasks' docstrings show one row: `x` is what the model
reads, `y` what it should say at that position, and a dot is a position that is not scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.batches import IGNORE
from holo_cli.errors import UsageError

Tokens = NDArray[np.int64]
Allowed = NDArray[np.bool_]


class Case(NamedTuple):
    """One difficulty: T positions, and how many things there are to remember."""

    length: int
    items: int


@dataclass(frozen=True)
class Task(ABC):
    """A task over `vocab_size` tokens. Two generators in the same state make the same rows."""

    vocab_size: int

    title: ClassVar[str]
    least_vocab: ClassVar[int]  # tokens without which there is nothing to ask
    asks: ClassVar[str]  # in a sentence, what a model has to do
    # whether answers come from the last hidden state through a decoder, see `compressor.py`
    decoded: ClassVar[bool] = False

    @abstractmethod
    def fill(self, rng: np.random.Generator, x: Tokens, y: Tokens, items: int) -> None:
        """Write one row: `x` (T,) comes full of zeros and `y` (T,) full of IGNORE."""

    @abstractmethod
    def least_length(self, items: int) -> int:
        """The shortest T that holds so many things."""

    @abstractmethod
    def most_items(self) -> int:
        """How many things the vocabulary has names for."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The accuracy of guessing blindly among the answers that there can be."""

    def check(self, case: Case) -> None:
        """Raises UsageError for a case that this task cannot make."""
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
                f"{self.title} with {case.items} items needs at least "
                f"{self.least_length(case.items)} positions, not {case.length}."
            )

    def sample(self, rng: np.random.Generator, rows: int, case: Case) -> tuple[Tokens, Tokens]:
        """x and y, each (rows, T) int64; y is IGNORE where nothing is asked."""
        x = np.zeros((rows, case.length), dtype=np.int64)
        y = np.full((rows, case.length), IGNORE, dtype=np.int64)
        for row in range(rows):
            self.fill(rng, x[row], y[row], case.items)
        return x, y

    def graded(
        self, rng: np.random.Generator, rows: int, case: Case
    ) -> tuple[Tokens, Tokens, Allowed | None]:
        """x and y as `sample` makes them, and the answers that count as right in a test.

        Those are (rows, T, vocab_size), true where an answer is right; None: only y is.
        """
        return *self.sample(rng, rows, case), None
