"""Multi-query associative recall (Arora et al., "Zoology", 2023)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.tasks.base import Task, TokenArray

DECAY = 0.1  # of the power law of query positions: more often near the pairs


class AssociativeRecall(Task):
    """Pairs of keys and values, then each key again: predict its value.

        x   k3 v7 k1 v2 k8 v5  _  _ k1  _  _ k8  _ k3  _  _
        y    .  .  .  .  .  .  .  . v2  .  . v5  . v7  .  .

    Token 0 (_) is filler, keys are the next half of the vocabulary, values the rest; `items` pairs.
    Keys differ within a row; values are sampled with replacement. The pairs are new in each row, so
    they cannot be memorised in the weights: they have to be stored and looked up. Attention does
    that with a cache that grows; a state of fixed size has room for as many pairs as its rank; a
    convolution adds up tokens at fixed distances and cannot compare keys at all.
    """

    title: ClassVar[str] = "Associative recall"
    least_vocab: ClassVar[int] = 3  # filler, a key, a value
    asks: ClassVar[str] = (
        "Each key is shown once with a value; predict the value when the key returns."
    )

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        half = (self.vocab_size - 1) // 2
        keys = 1 + rng.choice(half, size=items, replace=False)
        values = 1 + half + rng.integers(half, size=items)
        x[0 : 2 * items : 2], x[1 : 2 * items : 2] = keys, values
        room = len(x) - 2 * items
        # places by a power law of the distance from the pairs, without replacement
        weight = np.arange(1, room + 1, dtype=np.float64) ** (DECAY - 1)
        places = 2 * items + rng.choice(room, size=items, replace=False, p=weight / weight.sum())
        x[places], y[places] = keys, values

    def least_length(self, items: int) -> int:
        return 3 * items

    def most_items(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def chance(self) -> float:
        return 1 / self.most_items()
