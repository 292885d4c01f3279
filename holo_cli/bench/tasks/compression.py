"""Compression of MAD (Poli et al. 2024, arXiv 2403.17844): a string in one vector."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import Task, TokenArray


class Compression(Task):
    """A string, filler and a mark; from the hidden state at the mark alone, the string.

        x    b  d  a  c  _  _  #
                               |    a decoder gets this one vector, and a position
        y    b  d  a  c  .  .  .

    Token 0 (_) is filler, token 1 (#) the mark at the very end, the string has `items` tokens of
    the rest of the vocabulary. Answers are not predicted at the model's own positions (that would
    only repeat their inputs): a small decoder behind the model (`recall/compressor.py`), an MLP,
    gets the last hidden state plus a learned vector for each position of the string. The task
    measures how much of a text fits into one hidden state.
    """

    title: ClassVar[str] = "Compression"
    least_vocab: ClassVar[int] = 3  # filler, mark, and one to keep
    asks: ClassVar[str] = "Rebuild a string from the hidden state at its end."
    decoded: ClassVar[bool] = True

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        x[:items] = y[:items] = 2 + rng.integers(self.vocab_size - 2, size=items)
        x[-1] = 1

    def least_length(self, items: int) -> int:
        return items + 1

    def most_items(self) -> int:
        return 1 << 30

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 2)
