"""Training windows of several prepared sets, in the shares that their weights say.

The sets take turns in a fixed order of PERIOD windows, in which every prefix has the shares to
within a window (smooth weighted round-robin, as in the nginx load balancer). So window n is a pure
function of n: which set, and which of its windows. Nothing but the position has to be stored, every
process of a data-parallel run computes the same, and a run resumes exactly at any window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.batches import TrainBatches
from holo_cli.data.windows import Windows

PERIOD = 10_000  # windows: shares are kept to 0.01 %


class WeightedBatches(TrainBatches):
    """The windows of several `TrainBatches`, with shares by weight."""

    def __init__(self, sets: Sequence[TrainBatches], weights: Sequence[float]) -> None:
        """`weights` have the sum 1; each set gets at least one window of a period."""
        self.sets = list(sets)
        self._use([part for batches in sets for part in batches.parts], sets[0].seed)
        self.counts = counts(weights)
        self._order = turns(self.counts)
        # how many earlier windows of the period are of the same set
        self._before = np.zeros(PERIOD, dtype=np.int64)
        for number in range(len(self.sets)):
            own = self._order == number
            self._before[own] = np.arange(int(own.sum()))

    @property
    def filled(self) -> float:
        shares = self.counts / PERIOD
        return float(sum(s * b.filled for s, b in zip(shares, self.sets, strict=True)))

    def epochs(self, windows: int) -> list[float]:
        """How often each set is read in so many windows."""
        shares = (self.counts / PERIOD).tolist()
        return [windows * s / b.per_epoch for s, b in zip(shares, self.sets, strict=True)]

    def _part_of(self, number: int) -> tuple[Windows, int]:
        period, index = divmod(number, PERIOD)
        which = int(self._order[index])
        own = period * int(self.counts[which]) + int(self._before[index])
        return self.sets[which]._part_of(own)


def counts(weights: Sequence[float]) -> NDArray[np.int64]:
    """Windows of each set in a period: the largest remainders round up, and none is 0."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * PERIOD
    found = np.maximum(np.floor(exact), 1).astype(np.int64)
    while (left := PERIOD - int(found.sum())) != 0:
        found[int(np.argmax(exact - found) if left > 0 else np.argmax(found))] += np.sign(left)
    return found


def turns(each: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of the sets in a period of `each.sum()` windows, (PERIOD,): their numbers."""
    owed = np.zeros(len(each), dtype=np.int64)
    order = np.empty(int(each.sum()), dtype=np.int64)
    for index in range(len(order)):
        owed += each
        order[index] = which = int(np.argmax(owed))
        owed[which] -= len(order)
    return order
