"""Noisy in-context recall of MAD (Poli et al. 2024, arXiv 2403.17844)."""

from __future__ import annotations

from itertools import count
from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import Task, TokenArray
from holo_cli.bench.tasks.in_context import stream_of_pairs
from holo_cli.data.batches import IGNORE

SHARE = 5  # one token in SHARE is noise


class NoisyRecall(Task):
    """In-context recall with noise between the pairs, from a vocabulary of its own.

        x   k3 v7 n2 k1 v2 n9 n4 k3 v7 k8 v5 n2 k1 v2
        y    .  .  .  .  .  .  . v7  .  .  .  . v2  .

    The first quarter of the vocabulary is noise, the rest keys and values, half each; a fifth of
    the tokens is noise. It never separates a key from its value. Noise is recognisable by the token
    alone, so a model has to keep it out of its memory.
    """

    title: ClassVar[str] = "Noisy in-context recall"
    least_vocab: ClassVar[int] = 3  # noise, a key and a value
    asks: ClassVar[str] = "Pairs of keys and values repeat amid noise; predict each known value."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        noise, half = self._noise(), self.most_items()
        pairs = _pairs(len(x))
        keys = noise + np.arange(half)
        tokens, targets = stream_of_pairs(rng, pairs, items, keys, keys + half)
        dirt = len(x) - 2 * pairs
        # the row as units, pairs or single noise tokens: which of them are noise?
        is_noise = np.zeros(pairs + dirt, dtype=bool)
        is_noise[rng.choice(pairs + dirt, size=dirt, replace=False)] = True
        wide = np.repeat(is_noise, np.where(is_noise, 1, 2))
        x[wide], y[wide] = rng.integers(noise, size=dirt), IGNORE
        x[~wide], y[~wide] = tokens, targets

    def _noise(self) -> int:
        return max(1, self.vocab_size // 4)

    def least_length(self, items: int) -> int:
        return next(length for length in count(2 * items + 2) if _pairs(length) > items)

    def most_items(self) -> int:
        return (self.vocab_size - self._noise()) // 2

    @property
    def chance(self) -> float:
        return 1 / self.most_items()


def _pairs(length: int) -> int:
    """How many pairs a row of this length has; the other tokens are noise."""
    return (length - length // SHARE) // 2
