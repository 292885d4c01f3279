"""Token shards -> batches x, y of int64, with a position that is a single number.

Row number n is a pure function of (seed, n): of the whole training part (`rows.py`), or, where
languages are balanced, of each language in turn. So "where training is" is one integer, and any
stop, also inside an accumulation or an epoch, resumes exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holo_cli.data.dataset import PreparedData
from holo_cli.data.windows import (
    IGNORE,
    DocumentSubset,
    DocumentWindows,
    Ints,
    StreamWindows,
    TokenStream,
    Windows,
)
from holo_cli.errors import UsageError

SMALLEST_SHARE = 0.01  # of the tokens: a language below it is not worth, or not really, one of many


class TrainBatches:
    """Windows in a seeded order; `position` counts rows given out.

    Over several `parts`, each run of as many rows has one of each, in a seeded order.
    """

    def __init__(self, shards: Sequence[NDArray[Any]], context: int, seed: int) -> None:
        """Windows of `context` + 1 tokens over all shards. Raises DataError for too few tokens."""
        self._use([StreamWindows(TokenStream(shards), context, [seed])], seed)

    @classmethod
    def of(
        cls,
        data: PreparedData,
        context: int,
        seed: int,
        *,
        balance: bool = False,
        document_mask: bool = False,
    ) -> Self:
        """The training part of a set as the config wants it read.

        `balance`: rows of each language equally often. `document_mask`: no row holds two documents.
        Raises DataError for too few tokens, UsageError where there is nothing to balance.
        """
        shards = data.split("train")
        stream = TokenStream(shards)
        if not balance and not document_mask:
            return cls(shards, context, seed)
        starts, lengths = documents(data)
        groups = {"": np.arange(len(starts))}
        if balance:
            groups = by_language(data, lengths)
        parts: list[Windows] = []
        for number, (code, chosen) in enumerate(groups.items()):
            own = [seed, number] if balance else [seed]
            if document_mask:
                parts.append(
                    DocumentWindows(
                        stream, starts[chosen], lengths[chosen], context, data.tokenizer.end, own
                    )
                )
            else:
                texts = DocumentSubset(stream, starts[chosen], lengths[chosen])
                parts.append(StreamWindows(texts, context, own, f"The training part in '{code}'"))
        batches = cls.__new__(cls)
        batches._use(parts, seed)
        return batches

    def _use(self, parts: list[Windows], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.per_epoch = sum(part.per_epoch for part in parts)
        self.position = 0

    @property
    def epoch(self) -> float:
        """Passes over the training part so far; of balanced languages, on the average."""
        return self.position / self.per_epoch

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """The next `count` rows: inputs and targets, each (count, context) int64.

        A target of IGNORE is not scored.
        """
        numbers = range(self.position, self.position + count)
        rows = [part.row(n) for part, n in map(self._place, numbers)]
        self.position += count
        x, y = (np.stack(side) for side in zip(*rows, strict=True))
        return torch.from_numpy(x), torch.from_numpy(y)

    def skip(self, count: int) -> None:
        """Pass over rows that other processes read."""
        self.position += count

    def scored(self, first: int, count: int) -> int:
        """Targets that are scored in rows first .. first + count - 1, wherever the position is."""
        numbers = range(first, first + count)
        return sum(part.scored(n) for part, n in map(self._place, numbers))

    @property
    def filled(self) -> float:
        """Share of the positions in all rows that are scored; below 1 where documents end rows."""
        return sum(part.filled * part.per_epoch for part in self.parts) / self.per_epoch

    def _place(self, number: int) -> tuple[Windows, int]:
        """The part that a row is from, and its number there."""
        turn, index = divmod(number, len(self.parts))
        if len(self.parts) == 1:
            return self.parts[0], number
        order = np.random.Generator(np.random.PCG64([self.seed, len(self.parts), turn]))
        return self.parts[int(order.permutation(len(self.parts))[index])], turn


def documents(data: PreparedData) -> tuple[Ints, Ints]:
    """Where each document of the training part begins in its stream, and its tokens, (D,) each."""
    starts, lengths = [], []
    before = 0
    for ends in data.document_ends("train"):
        own = ends.astype(np.int64)
        sizes = np.diff(own, prepend=0)
        starts.append(before + own - sizes)
        lengths.append(sizes)
        before += int(own[-1])
    return np.concatenate(starts), np.concatenate(lengths)


def by_language(data: PreparedData, lengths: Ints) -> dict[str, Ints]:
    """The documents of each language, as numbers, by code.

    Languages with less than SMALLEST_SHARE of the tokens, which are often mistakes, and documents
    of no known language go with the largest. Raises UsageError for a single language.
    """
    codes = np.concatenate([records["language"] for records in data.records("train")])
    tokens = {code: int(lengths[codes == code].sum()) for code in np.unique(codes).tolist()}
    least = SMALLEST_SHARE * lengths.sum()
    kept = sorted(code for code, count in tokens.items() if code and count >= least)
    if len(kept) < 2:
        found = ", ".join(code.decode() for code in kept) or "none that is known"
        raise UsageError(
            f"data.balance: {data.path} has no two languages to balance (found: {found}).",
            next_step="Take data.balance out, or prepare a set of several languages.",
        )
    largest = max(kept, key=lambda code: tokens[code])
    rest = ~np.isin(codes, kept)
    return {
        code.decode(): np.flatnonzero((codes == code) | (rest & (code == largest))) for code in kept
    }


def shorten(x: Tensor, y: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """(B, T) windows cut into (B T / t, t): the same tokens, a shorter past. t must divide T."""
    return x.reshape(-1, context), y.reshape(-1, context)


def val_batches(
    shards: Sequence[NDArray[Any]], context: int, rows: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A whole split in windows that do not overlap: see `windows`."""
    yield from windows(TokenStream(shards), context, rows, first)


def windows(
    stream: TokenStream | DocumentSubset, context: int, rows: int, first: int, stride: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every token scored once, in order: (<= rows, context) inputs and targets.

    A window begins `stride` tokens after the one before it (0: `context`, so that they do not
    overlap) and scores its last `stride` targets, the first window all: every token but the first
    ones then has at least `context` - `stride` tokens before it. Targets that are not scored are
    IGNORE, those past the end too. The token before the very first is `first` (the end-of-text
    token), so that all of the text's bytes are scored.
    """
    stride = stride or context
    assert 0 < stride <= context
    count = 1 + -(-max(0, stream.length - context) // stride) if stream.length else 0
    within = np.arange(context)
    for begin in range(0, count, rows):
        offsets = np.arange(min(rows, count - begin)) * stride
        start = begin * stride
        stop = min(start + int(offsets[-1]) + context, stream.length)
        tokens = np.full(int(offsets[-1]) + context + 1, first, dtype=np.int64)
        known = min(start, 1)  # the token before the first window's inputs
        tokens[1 - known : stop - start + 1] = stream.read(start - known, stop - start + known)
        at = offsets[:, None] + within  # (windows, context)
        targets = tokens[at + 1]
        again = (start + offsets[:, None] > 0) & (within < context - stride)
        targets[again | (start + at >= stream.length)] = IGNORE
        yield torch.from_numpy(tokens[at]), torch.from_numpy(targets)
