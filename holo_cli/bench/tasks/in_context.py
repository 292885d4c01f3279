"""In-context recall of MAD (Poli et al. 2024, arXiv 2403.17844): a stream of pairs that repeat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from holo_cli.bench.tasks.base import Task, TokenArray
from holo_cli.data.batches import IGNORE

Ints = NDArray[np.int64]


def stream_of_pairs(
    rng: np.random.Generator, pairs: int, items: int, keys: Ints, values: Ints
) -> tuple[TokenArray, TokenArray]:
    """A stream of pairs, (2 * pairs,) tokens and targets; each of `items` keys occurs at least
    once.

    The target at a key is its value, except where the key occurs for the first time.
    """
    own = rng.choice(keys, size=items, replace=False)
    value = rng.choice(values, size=items)
    which = np.concatenate([np.arange(items), rng.integers(items, size=pairs - items)])
    rng.shuffle(which)
    x = np.stack([own[which], value[which]], axis=1)
    y = np.stack([value[which], np.full(pairs, IGNORE)], axis=1)
    y[np.unique(which, return_index=True)[1]] = IGNORE
    return x.reshape(-1), y.reshape(-1)


class InContextRecall(Task):
    """A stream of pairs of a key and a value; a key that was seen before has the same value again.

        x   k3 v7 k1 v2 k3 v7 k8 v5 k1 v2 k3 v7
        y    .  .  .  . v7  .  .  . v2  . v7  .

    Keys are the first half of the vocabulary, values the second; `items` different keys in a row,
    bound to new values in each row. Unlike `mqar` it has no filler and no separate questions: pairs
    are read and predicted in the same stream, each of them many times.
    """

    title: ClassVar[str] = "In-context recall"
    least_vocab: ClassVar[int] = 2  # a key and a value
    asks: ClassVar[str] = "Pairs of keys and values repeat; predict the value of each known key."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        half = self.most_items()
        pairs = (len(x) + 1) // 2  # of an odd length the last value is cut off
        keys, values = np.arange(half), half + np.arange(half)
        tokens, targets = stream_of_pairs(rng, pairs, items, keys, values)
        x[:], y[:] = tokens[: len(x)], targets[: len(x)]

    def least_length(self, items: int) -> int:
        return 2 * items + 1

    def most_items(self) -> int:
        return self.vocab_size // 2

    @property
    def chance(self) -> float:
        return 1 / self.most_items()
