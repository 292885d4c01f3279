"""The halves of the validation split for tuning and for reporting."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.halves import BLOCK, halves
from holo_cli.errors import DataError


class Stand:
    """The part of a prepared set that `halves` uses."""

    path = Path("data/some")

    def __init__(self, tokens: int) -> None:
        self.tokens = np.arange(tokens, dtype=np.uint16)

    def token_count(self, split: str) -> int:
        return len(self.tokens)

    def split(self, split: str) -> list[Any]:
        cut = len(self.tokens) // 3  # shards are not seen
        return [self.tokens[:cut], self.tokens[cut:]]


def cut(tokens: int, context: int) -> tuple[list[Any], list[Any]]:
    return halves(cast(PreparedData, Stand(tokens)), context)


@pytest.mark.parametrize(("tokens", "context"), [(60_000, 128), (500, 32), (65, 32), (999, 7)])
def test_every_token_is_in_one_half_and_windows_stay_whole(tokens: int, context: int) -> None:
    tune, test = cut(tokens, context)
    together = np.sort(np.concatenate([*tune, *test]))
    assert (together == np.arange(tokens)).all()
    blocks = sorted([*tune, *test], key=lambda block: int(block[0]))
    assert all(len(block) % context == 0 and len(block) <= BLOCK for block in blocks[:-1])
    if tokens > 10 * context:
        assert 0.35 < sum(map(len, test)) / tokens < 0.65


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="has 32 tokens: too few"):
        cut(32, 32)
    with pytest.raises(DataError, match="has 0 tokens"):
        cut(0, 32)
