"""A string that has to be kept: copying, selective copying, compression.

Copying: Arjovsky et al. 2015; Jelassi et al., "Repeat After Me", 2024. Selective copying: Jing et
al. 2019; Gu and Dao, "Mamba", 2023. It and compression are tasks of MAD (Poli et al. 2024, arXiv
2403.17844).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.tasks.base import Task, TokenArray


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


class SelectiveCopying(Copying):
    """Tokens scattered among filler, and a mark: predict the tokens in their order.

        x    _ b _ _ d a _ _ _ c _ # b d a
        y    . . . . . . . . . . . b d a c

    As in copying, but the tokens' places differ from row to row, so they cannot be fetched from a
    fixed distance: filler (token 0) must be recognised and skipped.
    """

    title: ClassVar[str] = "Selective copying"
    asks: ClassVar[str] = "Tokens are scattered among filler; repeat them in their order."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        string = 2 + rng.integers(self.vocab_size - 2, size=items)
        places = np.sort(rng.choice(len(x) - items, size=items, replace=False))
        x[places] = string
        x[-items] = 1
        x[len(x) - items + 1 :] = string[:-1]
        y[-items:] = string


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
