"""Copying (Arjovsky et al. 2015; Jelassi et al., "Repeat After Me", 2024)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import Task, TokenArray


class Copying(Task):
    """A string, filler, a mark, and the string again: predict each of its tokens.

        x    b d a c _ _ _ _ # b d a
        y    . . . . . . . . b d a c

    Token 0 (_) is filler, token 1 (#) the mark, the string has `items` tokens of the rest of the
    vocabulary. All of it must be stored at once: the state limits the length of the string.
    """

    title: ClassVar[str] = "Copying"
    least_vocab: ClassVar[int] = 3  # filler, mark, and one to copy
    asks: ClassVar[str] = "Repeat a string, token by token, after a gap."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        string = 2 + rng.integers(self.vocab_size - 2, size=items)
        x[:items] = string
        x[-items] = 1
        x[len(x) - items + 1 :] = string[:-1]
        y[-items:] = string

    def least_length(self, items: int) -> int:
        return 2 * items

    def most_items(self) -> int:
        return 1 << 30

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 2)
