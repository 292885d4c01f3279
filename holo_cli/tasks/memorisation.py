"""Memorisation of MAD (Poli et al. 2024, arXiv 2403.17844): facts that are only in the weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from holo_cli.tasks.base import Task, TokenArray

FACTS = 20_240_326  # seed of the facts, which are the same in all rows, runs and tests


class Memorisation(Task):
    """Keys, each followed by a mark: predict the key's value, which is in no row.

        x    !  !  k3 !  k1 !  k8 !        facts, the same everywhere: k1 v2, k3 v7, k8 v5 ...
        y    .  .  . v7  . v2  . v5

    Token 0 (!) asks (and fills up the beginning), keys are the next half of the vocabulary, values
    the rest; each key has a value of its own. `items` keys are asked for in a row. The only task
    here that needs no memory of the row: it measures what training puts into the weights, so that a
    model's recall can be compared with its knowledge. A test asks for facts that were trained, in
    new orders.
    """

    title: ClassVar[str] = "Memorisation"
    least_vocab: ClassVar[int] = 3  # mark, a key and a value
    asks: ClassVar[str] = (
        "Each key has one value, the same in all rows and shown in none; predict it."
    )

    def facts(self) -> NDArray[np.int64]:
        """The value of each key, (keys,): that of key 1 first."""
        half = self.most_items()
        rng = np.random.default_rng([FACTS, self.vocab_size])
        return 1 + half + rng.permutation(half)

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        keys = rng.choice(self.most_items(), size=items, replace=False)
        start = len(x) - 2 * items
        x[start::2], y[start + 1 :: 2] = 1 + keys, self.facts()[keys]

    def least_length(self, items: int) -> int:
        return 2 * items

    def most_items(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def chance(self) -> float:
        return 1 / self.most_items()
