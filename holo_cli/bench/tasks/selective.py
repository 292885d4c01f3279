"""Selective copying (Jing et al. 2019; Gu and Dao, "Mamba", 2023).

Also one of the six tasks of MAD (Poli et al. 2024, arXiv 2403.17844).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import TokenArray
from holo_cli.bench.tasks.copying import Copying


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
