"""Token shards -> batches x, y of int64, with a position that is a single number.

Training reads windows of T + 1 tokens without replacement: the stream is cut into windows, an
epoch is a seeded permutation of them, and each epoch starts its cut at another offset. Window
number n is a pure function of (seed, n), so "where training is" is one integer and any stop, also
inside an accumulation or an epoch, resumes exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holo_cli.errors import DataError

IGNORE = -100  # a target that is not scored


class TokenStream:
    """Shards in order, read as one sequence of `length` tokens."""

    def __init__(self, shards: Sequence[NDArray[Any]]) -> None:
        self.shards = [s for s in shards if len(s)]
        self.starts = np.cumsum([0, *(len(s) for s in self.shards)])
        self.length = int(self.starts[-1])

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Tokens start .. start + count - 1, across shard borders, as a new array."""
        out = np.empty(count, dtype=np.int64)
        filled = 0
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while filled < count:
            at = start + filled - int(self.starts[shard])
            piece = self.shards[shard][at : at + count - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard += 1
        return out


class TrainBatches:
    """Windows of `context` + 1 tokens in a seeded order; `position` counts windows given out."""

    def __init__(self, shards: Sequence[NDArray[Any]], context: int, seed: int) -> None:
        self.stream = TokenStream(shards)
        self.context = context
        self.seed = seed
        self.position = 0
        if self.stream.length < context + 1:
            raise DataError(
                f"The training part has {self.stream.length:,} tokens; one context of {context} "
                f"needs {context + 1:,}.",
                next_step="Train with a smaller --context, or prepare more text.",
            )
        # one window fewer than fits leaves room to shift the cut by up to a whole context
        self.per_epoch = max(1, (self.stream.length - 1) // context - 1)
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._offset = 0

    @property
    def epoch(self) -> float:
        """Passes over the training part so far."""
        return self.position / self.per_epoch

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """The next `count` windows: x and y, each (count, context) int64, y one token ahead."""
        rows = np.stack([self._window(self.position + i) for i in range(count)])
        self.position += count
        both = torch.from_numpy(rows)
        return both[:, :-1], both[:, 1:]

    def skip(self, count: int) -> None:
        """Pass over windows that other processes read."""
        self.position += count

    def _window(self, number: int) -> NDArray[np.int64]:
        epoch, index = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._order = rng.permutation(self.per_epoch)
            spare = self.stream.length - 1 - self.per_epoch * self.context
            self._offset = int(rng.integers(0, spare + 1))
            self._epoch = epoch
        start = self._offset + int(self._order[index]) * self.context
        return self.stream.read(start, self.context + 1)


def shorten(x: Tensor, y: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """(B, T) windows cut into (B T / t, t): the same tokens, a shorter past. t must divide T."""
    return x.reshape(-1, context), y.reshape(-1, context)


def val_batches(
    shards: Sequence[NDArray[Any]], context: int, rows: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every token of a split scored once: (<= rows, context) inputs and targets, in order.

    Windows do not overlap; the token before the very first is `first` (the end-of-text token), so
    that all of the split's bytes are scored. The last window is filled up with targets IGNORE.
    """
    stream = TokenStream(shards)
    span = context * rows
    previous = first
    for start in range(0, stream.length, span):
        count = min(span, stream.length - start)
        target = np.full(-(-count // context) * context, IGNORE, dtype=np.int64)
        target[:count] = stream.read(start, count)
        tokens = np.empty_like(target)
        tokens[0] = previous
        tokens[1:] = np.where(target[:-1] == IGNORE, first, target[:-1])
        previous = int(target[count - 1])
        yield (
            torch.from_numpy(tokens.reshape(-1, context)),
            torch.from_numpy(target.reshape(-1, context)),
        )
