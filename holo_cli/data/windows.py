"""Training windows over a sequence of tokens: window n is a function of (seed, n).

`StreamWindows` divides the whole sequence into windows, across document borders; `DocumentWindows`
divides each document separately, so that no window contains two documents. Both visit all windows
without replacement, in a new seeded order and with new window borders in each epoch.
Legend: T context, D documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.errors import DataError
from holo_cli.wording import counted

IGNORE = -100  # a target that is not scored

Window = tuple[NDArray[np.int64], NDArray[np.int64]]  # inputs and targets, (T,) each
Ints = NDArray[np.int64]
Learnt = Callable[[int, int], NDArray[np.bool_]]  # (start, count) -> (count,)


class TokenStream:
    """The tokens of several shards as one sequence of `length` tokens.

    With `learnt` not all of them are scored: it says which of `count` tokens from `start` on are,
    as `AnswerIndex.scored` does.
    """

    def __init__(self, shards: Sequence[NDArray[Any]], learnt: Learnt | None = None) -> None:
        self.shards = [s for s in shards if len(s)]
        self.learnt = learnt
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

    def unmasked(self) -> TokenStream:
        """The same tokens, all of them scored."""
        return self if self.learnt is None else TokenStream(self.shards)

    def mask(self, start: int, targets: Ints) -> None:
        """Make those of `targets`, the tokens from `start` on, IGNORE that are not scored."""
        if self.learnt is not None:
            targets[~self.learnt(start, len(targets))] = IGNORE


class DocumentSubset:
    """Some documents of a stream as one sequence, for example those of one language."""

    def __init__(self, stream: TokenStream | DocumentSubset, starts: Ints, lengths: Ints) -> None:
        """`starts`, `lengths`: (D,) each, the positions of the documents in the stream."""
        self.stream, self.starts, self.lengths = stream, starts, lengths
        self.ends = np.cumsum(lengths)  # in this sequence
        self.length = int(self.ends[-1]) if len(self.ends) else 0

    def read(self, start: int, count: int) -> Ints:
        """Tokens start .. start + count - 1 of the sequence, as a new array."""
        out = np.empty(count, dtype=np.int64)
        for filled, size, source in self._pieces(start, count):
            out[filled : filled + size] = self.stream.read(source, size)
        return out

    def unmasked(self) -> DocumentSubset:
        """As `TokenStream.unmasked`."""
        return DocumentSubset(self.stream.unmasked(), self.starts, self.lengths)

    def mask(self, start: int, targets: Ints) -> None:
        """As `TokenStream.mask`."""
        for filled, size, source in self._pieces(start, len(targets)):
            self.stream.mask(source, targets[filled : filled + size])

    def _pieces(self, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(place, size, place in the stream) of the pieces of documents in a stretch."""
        filled = 0
        number = int(np.searchsorted(self.ends, start, side="right"))
        while filled < count:
            begin = int(self.ends[number - 1]) if number else 0
            at = start + filled - begin
            size = min(int(self.ends[number]) - begin - at, count - filled)
            yield filled, size, int(self.starts[number]) + at
            filled += size
            number += 1


def apart(stream: TokenStream | DocumentSubset, ends: Ints) -> Iterator[DocumentSubset]:
    """The documents of a stream one by one. `ends`: (D,), the position after each."""
    lengths = np.diff(ends, prepend=0)
    for start, length in zip(ends - lengths, lengths, strict=True):
        yield DocumentSubset(stream, np.array([start]), np.array([length]))


def is_masked(stream: TokenStream | DocumentSubset) -> bool:
    """Whether only some of the tokens are scored."""
    while isinstance(stream, DocumentSubset):
        stream = stream.stream
    return stream.learnt is not None


class Windows(ABC):
    """Windows without replacement: `per_epoch` of them in a seeded order for each epoch."""

    per_epoch: int

    def __init__(self, seed: Sequence[int]) -> None:
        self.seed = list(seed)
        self._epoch = -1
        self._order: Ints = np.empty(0, dtype=np.int64)

    def window(self, number: int) -> Window:
        """Inputs and targets of window `number`, counted over all epochs."""
        return self._read(self._index(number))

    @abstractmethod
    def scored(self, number: int) -> int:
        """Number of targets of window `number` that are scored."""

    @property
    def filled(self) -> float:
        """Share of scored positions over all windows; the rest is padding."""
        return 1.0

    def _index(self, number: int) -> int:
        """Index of window `number` in the text; prepares the order of its epoch."""
        epoch, index = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([*self.seed, epoch]))
            self._order = rng.permutation(self.per_epoch)
            self._shift(rng)
            self._epoch = epoch
        return int(self._order[index])

    @abstractmethod
    def _shift(self, rng: np.random.Generator) -> None:
        """Choose the window borders of a new epoch."""

    @abstractmethod
    def _read(self, index: int) -> Window:
        """Window `index` of the epoch, in the order of the text."""


class StreamWindows(Windows):
    """Windows of T + 1 tokens; the last token of each is the first of the next.

    The targets are the inputs shifted by one token. A window may contain the end of one document
    and the start of the next. A few tokens at both ends of the sequence, different ones in each
    epoch, are not used.
    """

    def __init__(
        self,
        stream: TokenStream | DocumentSubset,
        context: int,
        seed: Sequence[int],
        language: str = "",
    ) -> None:
        super().__init__(seed)
        self.stream, self.context = stream, context
        self.masked = is_masked(stream)
        if stream.length < context + 1:
            next_step = "Train with a smaller --context, or prepare more text."
            if language:
                raise DataError(
                    f"The training split has {counted(stream.length, 'token')} in '{language}'; "
                    "a context "
                    f"of {context} needs {context + 1:,}.",
                    next_step=next_step,
                )
            raise DataError(
                f"The training split has {counted(stream.length, 'token')}; a context of "
                f"{context} needs "
                f"{context + 1:,}.",
                next_step=next_step,
            )
        # one window fewer than fits leaves room to shift the borders by up to a whole context
        self.per_epoch = max(1, (stream.length - 1) // context - 1)
        self._offset = 0

    def scored(self, number: int) -> int:
        if not self.masked:
            return self.context
        return int((self.window(number)[1] != IGNORE).sum())

    def _shift(self, rng: np.random.Generator) -> None:
        spare = self.stream.length - 1 - self.per_epoch * self.context
        self._offset = int(rng.integers(0, spare + 1))

    def _read(self, index: int) -> Window:
        start = self._offset + index * self.context
        tokens = self.stream.read(start, self.context + 1)
        if not self.masked:
            return tokens[:-1], tokens[1:]
        targets = tokens[1:].copy()
        self.stream.mask(start + 1, targets)
        return tokens[:-1], targets


class DocumentWindows(Windows):
    """Windows of single documents, of at most T targets; each token is a target once per epoch.

    The first input of a document is `first` (the end-of-text token), as in validation and
    generation; the first input of a later window is the token before it. Windows are padded at the
    end with IGNORE targets, which scored positions of a causal model cannot see. The window borders
    of a document shift within the padding of its last window.
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
        """`starts`, `lengths`: (D,) each, the documents in the stream; none is empty."""
        super().__init__(seed)
        self.stream, self.context, self.first = stream, context, first
        self.masked = is_masked(stream)
        self.starts, self.lengths = starts, lengths
        self.counts = -(-lengths // context)  # windows of each document
        self.ends = np.cumsum(self.counts)
        self.per_epoch = int(self.ends[-1])
        self._shifts = np.zeros_like(lengths)

    @property
    def filled(self) -> float:
        return float(self.lengths.sum()) / (self.per_epoch * self.context)

    def scored(self, number: int) -> int:
        if self.masked:
            return int((self.window(number)[1] != IGNORE).sum())
        begin, end, _ = self._span(self._index(number))
        return end - begin

    def _shift(self, rng: np.random.Generator) -> None:
        self._shifts = rng.integers(0, self.counts * self.context - self.lengths + 1)

    def _span(self, index: int) -> tuple[int, int, int]:
        """(first target, end of the targets) of a window in its document, and the document."""
        document = int(np.searchsorted(self.ends, index, side="right"))
        piece = index - int(self.ends[document] - self.counts[document])
        begin = piece * self.context - int(self._shifts[document])
        end = min(begin + self.context, int(self.lengths[document]))
        return max(begin, 0), end, document

    def _read(self, index: int) -> Window:
        begin, end, document = self._span(index)
        start, size = int(self.starts[document]), end - begin
        x = np.full(self.context, self.first, dtype=np.int64)
        y = np.full(self.context, IGNORE, dtype=np.int64)
        y[:size] = self.stream.read(start + begin, size)
        x[1:size] = y[: size - 1]
        if begin:
            x[0] = self.stream.read(start + begin - 1, 1)[0]
        if self.masked:
            self.stream.mask(start + begin, y[:size])
        return x, y
