"""Log-odds as integers that encoder and decoder agree on although their arithmetic differs.

Log-odds are rounded to the points `offset + k STEP`, which costs about p (1 - p) STEP^2 / 24 nats
per decision: 0.1 % of the size. A value within `GUARD` of the boundary between two points could
be rounded differently by a decoder. The encoder therefore chooses a new offset for each block of
`BLOCK` tokens, the first of a fixed sequence with which no value of the block is that close to a
boundary, and writes its number before the block (some two bits). A decoder whose log-odds differ
by less than `GUARD` rounds every one of them to the same point.

In float32, other batch sizes and `forward` instead of steps change the log-odds of a model of a
million parameters by 1e-6 on average and by 1e-5 at most.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 0.25  # nats of log-odds
LIMIT = 64  # largest multiple: log-odds of 16, a probability of 1.1e-7
GUARD = 2e-5  # nats of log-odds
BLOCK = 512  # tokens
OFFSETS = 64  # tried at most; then the one with the fewest close values is taken
_GOLDEN = (math.sqrt(5) - 1) / 2  # spreads any number of offsets evenly


def offset(number: int) -> float:
    """The offset of that number, from 0 to STEP; a multiple of 2^-20, exact everywhere.

    >>> offset(0)
    0.0
    """
    return round((number * _GOLDEN % 1) * STEP * 2**20) / 2**20


@cache
def probabilities(number: int) -> NDArray[np.float64]:
    """The probability of the bit 1 at each multiple from -LIMIT to LIMIT, for an offset's number.

    Multiples of 2^-24, the resolution of the coder, so that a differing last digit of exp() on
    another system has no effect.
    """
    points = (k * STEP + offset(number) for k in range(-LIMIT, LIMIT + 1))
    return np.asarray([round(2**24 / (1 + math.exp(-x))) / 2**24 for x in points])


def multiples(log_odds: NDArray[Any], offsets: NDArray[Any] | float) -> NDArray[np.int64]:
    """The multiple that each value is rounded to, from -LIMIT to LIMIT."""
    nearest = np.floor((log_odds - offsets) / STEP + 0.5)
    return np.clip(nearest, -LIMIT, LIMIT).astype(np.int64)


def best_offset(log_odds: NDArray[Any]) -> int:
    """The number of the first offset with which no value is close to a boundary."""
    values = log_odds[np.abs(log_odds) < (LIMIT + 1) * STEP]
    fewest, best = len(values) + 1, 0
    for number in range(OFFSETS):
        part = (values - offset(number)) / STEP + 0.5
        close = int(np.count_nonzero(np.abs(part - np.rint(part)) < GUARD / STEP))
        if close < fewest:
            fewest, best = close, number
        if not close:
            break
    return best
