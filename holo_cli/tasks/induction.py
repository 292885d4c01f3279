"""The induction head (Olsson et al. 2022; in this form Fu et al., "H3", 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.tasks.base import Task, TokenArray


class Induction(Task):
    """Noise with a mark before one token; when the mark returns, predict that token.

        x    c a d b # e a a d c b # a d # ... #
        y    . . . . . . . . . . . e . . e ... e

    Token 0 (#) is the mark. It occurs once in the first half, and `items` more times in
    the second half, the last time at the very end; each time the answer is the token after the
    first one. The other tokens are drawn from the rest of the vocabulary.
    """

    title: ClassVar[str] = "Induction"
    least_vocab: ClassVar[int] = 2  # the mark, and one to say
    asks: ClassVar[str] = "A mark returns; predict the token that followed it the first time."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        half = len(x) // 2
        x[:] = 1 + rng.integers(self.vocab_size - 1, size=len(x))
        first = int(rng.integers(half - 1))
        x[first] = 0
        places = half + rng.choice(len(x) - half - 1, size=items - 1, replace=False)
        asked = np.append(places, len(x) - 1)
        x[asked], y[asked] = 0, x[first + 1]

    def least_length(self, items: int) -> int:
        return 2 * items + 2

    def most_items(self) -> int:
        return 1 << 30

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 1)
