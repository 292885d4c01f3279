"""The exact confidence interval of a proportion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LEVEL = 0.95


def binomial_interval(right: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact confidence interval of a proportion (Clopper and Pearson, 1934). For a count with a
    half the wider bound is used; without trials it is all of [0, 1]."""
    if count == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low_at, high_at = int(np.floor(right)), int(np.ceil(right))
    low = 0.0 if low_at == 0 else _bisect(lambda p: 1 - _cdf(low_at - 1, count, p) - tail)
    high = 1.0 if high_at == count else _bisect(lambda p: tail - _cdf(high_at, count, p))
    return low, high


def _cdf(most: int, count: int, p: float) -> float:
    """Probability of at most `most` successes in `count` trials, for 0 < p < 1."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # log n!
    k = np.arange(most + 1)
    log_mass = logs[count] - logs[k] - logs[count - k] + k * np.log(p) + (count - k) * np.log1p(-p)
    return float(np.exp(log_mass).sum())


def _bisect(rising: Callable[[float], float]) -> float:
    """The zero of an increasing function on [0, 1]."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
