"""From a sequence of tokens to the rows that training reads: row n is a function of (seed, n).

`StreamWindows` cuts the sequence into windows wherever they fall, document borders and all;
`DocumentWindows` cuts each document by itself, so that no row holds two. Both go through all rows
without replacement in a seeded order, anew in each epoch, and move the cuts from epoch to epoch.
Legend: T the context, D documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.errors import DataError

IGNORE = -100  # a target that is not scored

Row = tuple[NDArray[np.int64], NDArray[np.int64]]  # inputs and targets, (T,) each
Ints = NDArray[np.int64]


class TokenStream:
    """Shards in order, read as one sequence of `length` tokens."""

    def __init__(self, shards: Sequence[NDArray[Any]]) -> None:
        self.shards = [s for s in shards if len(s)]
        self.starts = np.cumsum([0, *(len(s) for s in self.shards)])
        self.length = int(self.starts[-1])

    def read(self, start: int, count: int) -> Ints:
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


class DocumentSubset:
    """Some documents of a stream, read as one sequence: those of one language, say."""

    def __init__(self, stream: TokenStream, starts: Ints, lengths: Ints) -> None:
        """`starts`, `lengths`: (D,) each, where in the stream the documents lie."""
        self.stream, self.starts = stream, starts
        self.ends = np.cumsum(lengths)  # in the sequence made here
        self.length = int(self.ends[-1]) if len(self.ends) else 0

    def read(self, start: int, count: int) -> Ints:
        """Tokens start .. start + count - 1 of the sequence, as a new array."""
        out = np.empty(count, dtype=np.int64)
        filled = 0
        number = int(np.searchsorted(self.ends, start, side="right"))
        while filled < count:
            begin = int(self.ends[number - 1]) if number else 0
            at = start + filled - begin
            size = min(int(self.ends[number]) - begin - at, count - filled)
            out[filled : filled + size] = self.stream.read(int(self.starts[number]) + at, size)
            filled += size
            number += 1
        return out


class Windows(ABC):
    """Windows without replacement: `per_epoch` of them in a seeded order, then in another one."""

    per_epoch: int

    def __init__(self, seed: Sequence[int]) -> None:
        self.seed = list(seed)
        self._epoch = -1
        self._order: Ints = np.empty(0, dtype=np.int64)

    def row(self, number: int) -> Row:
        """Inputs and targets of row `number`, counted over all epochs."""
        return self._cut(self._turn_to(number))

    @abstractmethod
    def scored(self, number: int) -> int:
        """Targets of that row that are scored."""

    @property
    def filled(self) -> float:
        """Share of the positions in all rows that are scored; the rest is filling."""
        return 1.0

    def _turn_to(self, number: int) -> int:
        """Make the epoch of a row the present one; which of its rows it is."""
        epoch, index = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([*self.seed, epoch]))
            self._order = rng.permutation(self.per_epoch)
            self._shift(rng)
            self._epoch = epoch
        return int(self._order[index])

    @abstractmethod
    def _shift(self, rng: np.random.Generator) -> None:
        """Choose where the cuts of a new epoch lie."""

    @abstractmethod
    def _cut(self, index: int) -> Row:
        """Row `index` of the epoch, in the order of the text."""


class StreamWindows(Windows):
    """Windows of T + 1 tokens, the last one of each being the first of the next.

    The targets are the inputs one token on. A window may hold the end of one document and the
    start of the next. A few tokens at either end, other ones in each epoch, are left out.
    """

    def __init__(
        self,
        stream: TokenStream | DocumentSubset,
        context: int,
        seed: Sequence[int],
        what: str = "The training part",
    ) -> None:
        super().__init__(seed)
        self.stream, self.context = stream, context
        if stream.length < context + 1:
            raise DataError(
                f"{what} has {stream.length:,} tokens; one context of {context} "
                f"needs {context + 1:,}.",
                next_step="Train with a smaller --context, or prepare more text.",
            )
        # one window fewer than fits leaves room to shift the cut by up to a whole context
        self.per_epoch = max(1, (stream.length - 1) // context - 1)
        self._offset = 0

    def scored(self, number: int) -> int:
        return self.context

    def _shift(self, rng: np.random.Generator) -> None:
        spare = self.stream.length - 1 - self.per_epoch * self.context
        self._offset = int(rng.integers(0, spare + 1))

    def _cut(self, index: int) -> Row:
        tokens = self.stream.read(self._offset + index * self.context, self.context + 1)
        return tokens[:-1], tokens[1:]


class DocumentWindows(Windows):
    """Each document by itself in pieces of at most T targets, every token a target once an epoch.

    The input before a document's first token is `first` (the end-of-text token), as in validation
    and in writing; the input before a later piece is the token before it. A row is filled up with
    targets IGNORE at its end, where no causal model's scored positions can see them. The cuts of
    a document move within the room that its last row leaves.
    """

    def __init__(
        self,
        stream: TokenStream,
        starts: Ints,
        lengths: Ints,
        context: int,
        first: int,
        seed: Sequence[int],
    ) -> None:
        """`starts`, `lengths`: (D,) each, where in the stream the documents lie; none is empty."""
        super().__init__(seed)
        self.stream, self.context, self.first = stream, context, first
        self.starts, self.lengths = starts, lengths
        self.rows = -(-lengths // context)
        self.ends = np.cumsum(self.rows)  # rows up to and with each document
        self.per_epoch = int(self.ends[-1])
        self._shifts = np.zeros_like(lengths)

    @property
    def filled(self) -> float:
        return float(self.lengths.sum()) / (self.per_epoch * self.context)

    def scored(self, number: int) -> int:
        begin, end, _ = self._span(self._turn_to(number))
        return end - begin

    def _shift(self, rng: np.random.Generator) -> None:
        self._shifts = rng.integers(0, self.rows * self.context - self.lengths + 1)

    def _span(self, index: int) -> tuple[int, int, int]:
        """A row's first target and the end of its targets, in its document, and the document."""
        document = int(np.searchsorted(self.ends, index, side="right"))
        piece = index - int(self.ends[document] - self.rows[document])
        begin = piece * self.context - int(self._shifts[document])
        end = min(begin + self.context, int(self.lengths[document]))
        return max(begin, 0), end, document

    def _cut(self, index: int) -> Row:
        begin, end, document = self._span(index)
        start, size = int(self.starts[document]), end - begin
        x = np.full(self.context, self.first, dtype=np.int64)
        y = np.full(self.context, IGNORE, dtype=np.int64)
        y[:size] = self.stream.read(start + begin, size)
        x[1:size] = y[: size - 1]
        if begin:
            x[0] = self.stream.read(start + begin - 1, 1)[0]
        return x, y
