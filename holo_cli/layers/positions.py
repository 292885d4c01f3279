"""How many tokens a decoding state has read: one number for all its rows, or one for each.

States of one sequence, or of several samples of it, have one `int`. Where requests of different
lengths are decoded together (`layers/joined.py`), `RowPositions` takes its place. The next token of
each row is then read alone: steps of one position.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowPositions:
    """A position for each row, (B,) int64 on the device of the state; `most` is the largest."""

    def __init__(self, of_rows: Tensor, most: int) -> None:
        self.of_rows = of_rows
        self.most = most

    def __add__(self, tokens: int) -> RowPositions:
        return RowPositions(self.of_rows + tokens, self.most + tokens)

    def select(self, rows: Tensor) -> RowPositions:
        """Those of the given rows, (R,) int64."""
        chosen = self.of_rows[rows]
        return RowPositions(chosen, int(chosen.max()))

    def row(self, place: int) -> int:
        """The position of one row."""
        return int(self.of_rows[place])


Positions = int | RowPositions


def most(position: Positions) -> int:
    """The largest of the rows' positions."""
    return position if isinstance(position, int) else position.most


def following(position: Positions, count: int, device: torch.device) -> Tensor:
    """The next `count` positions, int64: (S,), or (B, S) where rows differ."""
    ahead = torch.arange(count, device=device)
    if isinstance(position, int):
        return ahead + position
    return position.of_rows[:, None] + ahead
