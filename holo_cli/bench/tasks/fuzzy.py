"""Fuzzy in-context recall of MAD (Poli et al. 2024, arXiv 2403.17844): keys of several tokens."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import Task, TokenArray

MOST = 3  # tokens of a key, and of a value


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
