"""The three in-context recalls of MAD (Poli et al. 2024, arXiv 2403.17844): pairs that repeat.

Keys and values are single tokens, strings (fuzzy), or single tokens amid noise (noisy).
"""

from __future__ import annotations

from itertools import count
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.batches import IGNORE
from holo_cli.tasks.base import Task, TokenArray

Ints = NDArray[np.int64]
MOST = 3  # fuzzy: tokens of a key, and of a value
SHARE = 5  # noisy: one token in SHARE is noise


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


class FuzzyRecall(Task):
    """In-context recall in which keys and values have one to three tokens each.

        x   _ _ k3 k1 v7  k8 v2 v5 v2  k3 k1 v7  k1 k1 v4 v4  k8 v2 v5 v2
        y   . .  .  .  .   .  .  .  .   . v7  .   .  .  .  .  v2 v5 v2  .

    Token 0 (_) fills up the beginning, keys are the next half of the vocabulary, values the rest.
    A key ends where the first token of a value follows; no key begins with another key, so it is
    always known whether a key is complete. All tokens of a value whose key was seen before are
    scored. A memory that looks up single tokens is not enough: whole strings are compared.
    """

    title: ClassVar[str] = "Fuzzy in-context recall"
    least_vocab: ClassVar[int] = 3  # filler, a key and a value
    asks: ClassVar[str] = "In-context recall with keys and values of one to three tokens."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        keys = self._keys(rng, items)
        first = 1 + self.most_items()
        lengths = rng.integers(1, MOST + 1, size=items)
        values = [rng.integers(first, self.vocab_size, size=n).tolist() for n in lengths]
        order = rng.integers(items, size=len(x) // 2).tolist()
        tokens: list[int] = []
        scored: list[int] = []  # positions whose next token is asked for
        seen: set[int] = set()
        for which in order:
            key, value = keys[which], values[which]
            if len(tokens) + len(key) + len(value) > len(x):
                break
            if which in seen:
                begin = len(tokens) + len(key) - 1
                scored.extend(range(begin, begin + len(value)))
            seen.add(which)
            tokens += [*key, *value]
        start = len(x) - len(tokens)
        x[start:] = tokens
        asked = start + np.array(scored)
        y[asked] = x[asked + 1]

    def _keys(self, rng: np.random.Generator, items: int) -> list[list[int]]:
        """Different keys, none the beginning of another.

        There is always one more: with K key tokens, fewer than K keys block fewer than K ** MOST
        of the strings of MOST tokens.
        """
        keys: list[list[int]] = []
        while len(keys) < items:
            length = int(rng.integers(1, MOST + 1))
            new = rng.integers(1, 1 + self.most_items(), size=length).tolist()
            if all(new[: len(k)] != k[: len(new)] for k in keys):
                keys.append(new)
        return keys

    def least_length(self, items: int) -> int:
        return 2 * MOST * (items + 1)  # one key then occurs twice, however long they all are

    def most_items(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 1 - self.most_items())


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
