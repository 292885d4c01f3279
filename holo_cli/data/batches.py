"""Batches of inputs and targets from token shards, with a single integer as position.

Window n is a pure function of (seed, n) over the training split (`windows.py`), or, with balanced
languages, over each language in turn. So the position of training is one integer, and a run resumes
exactly from any step, also within a gradient accumulation or an epoch.
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
    apart,
    is_masked,
)
from holo_cli.errors import UsageError

_OF_A_SET = 1_000_000  # keeps the seeds of sets off those of languages
SMALLEST_SHARE = 0.01  # of the tokens: a rarer language is not balanced (often misdetected)


class TrainBatches:
    """Batches of windows in a seeded order; `position` counts the windows taken.

    With several `parts`, each group of len(parts) windows has one of each, in a seeded order.
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
        number: int | None = None,
    ) -> Self:
        """Batches of the training split of a set.

        `balance`: equally many windows of each language. `document_mask`: no window contains two
        documents. `number`: which of several sets this is, so that equal ones are read in different
        orders. Raises DataError for too few tokens, UsageError for fewer than two languages.
        """
        stream = data.stream("train")
        base = [seed] if number is None else [seed, _OF_A_SET + number]
        if not balance and not document_mask:
            batches = cls.__new__(cls)
            batches._use([StreamWindows(stream, context, base)], seed)
            return batches
        starts, lengths = documents(data)
        groups = {"": np.arange(len(starts))}
        if balance:
            groups = by_language(data, lengths)
        parts: list[Windows] = []
        for language, (code, chosen) in enumerate(groups.items()):
            own = [*base, language] if balance else base
            if document_mask:
                parts.append(
                    DocumentWindows(
                        stream, starts[chosen], lengths[chosen], context, data.tokenizer.end, own
                    )
                )
            else:
                texts = DocumentSubset(stream, starts[chosen], lengths[chosen])
                parts.append(StreamWindows(texts, context, own, code))
        batches = cls.__new__(cls)
        batches._use(parts, seed)
        return batches

    def _use(self, parts: list[Windows], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.per_epoch = sum(part.per_epoch for part in parts)
        self.position = 0

    @property
    def epoch(self) -> float:
        """Passes over the training split so far; with balanced languages, their mean."""
        return self.position / self.per_epoch

    def take(
        self, count: int, rank: int = 0, world: int = 1, *, together: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The share of process `rank` in the next count x world windows, every world-th of them or,
        `together`, count in a row: inputs and targets, each (count, context) int64.

        A target of IGNORE is not scored. The position passes all of the windows.
        """
        numbers = range(self.position + rank, self.position + count * world, world)
        if together:
            first = self.position + rank * count
            numbers = range(first, first + count)
        windows = [part.window(n) for part, n in map(self._part_of, numbers)]
        self.position += count * world
        x, y = (np.stack(side) for side in zip(*windows, strict=True))
        return torch.from_numpy(x), torch.from_numpy(y)

    def scored(self, first: int, count: int) -> int:
        """Number of scored targets in windows first .. first + count - 1."""
        numbers = range(first, first + count)
        return sum(part.scored(n) for part, n in map(self._part_of, numbers))

    @property
    def filled(self) -> float:
        """Share of scored positions over all windows; below 1 with `document_mask`."""
        return sum(part.filled * part.per_epoch for part in self.parts) / self.per_epoch

    def _part_of(self, number: int) -> tuple[Windows, int]:
        """The part of window `number`, and the number of the window in it."""
        turn, index = divmod(number, len(self.parts))
        if len(self.parts) == 1:
            return self.parts[0], number
        order = np.random.Generator(np.random.PCG64([self.seed, len(self.parts), turn]))
        return self.parts[int(order.permutation(len(self.parts))[index])], turn


def documents(data: PreparedData, split: str = "train") -> tuple[Ints, Ints]:
    """Starts and lengths of a split's documents in the token stream, (D,) each."""
    starts, lengths = [], []
    before = 0
    for ends in data.document_ends(split):
        own = ends.astype(np.int64)
        sizes = np.diff(own, prepend=0)
        starts.append(before + own - sizes)
        lengths.append(sizes)
        before += int(own[-1])
    return np.concatenate(starts), np.concatenate(lengths)


def by_language(data: PreparedData, lengths: Ints) -> dict[str, Ints]:
    """Indices of the documents of each language, by code.

    Documents of unknown language, and of languages with less than SMALLEST_SHARE of the tokens, are
    added to the largest language. Raises UsageError for fewer than two languages.
    """
    codes = np.concatenate([records["language"] for records in data.records("train")])
    tokens = {code: int(lengths[codes == code].sum()) for code in np.unique(codes).tolist()}
    least = SMALLEST_SHARE * lengths.sum()
    kept = sorted(code for code, count in tokens.items() if code and count >= least)
    if len(kept) < 2:
        found = ", ".join(code.decode() for code in kept) or "-"
        raise UsageError(
            f"data.balance needs at least two languages; {data.path} has: {found}.",
            next_step="Switch data.balance off, or prepare a set of several languages.",
        )
    largest = max(kept, key=lambda code: tokens[code])
    rest = ~np.isin(codes, kept)
    return {
        code.decode(): np.flatnonzero((codes == code) | (rest & (code == largest))) for code in kept
    }


def shorten(x: Tensor, y: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Split windows (B, T) into (B T / t, t) for a shorter context t, which must divide T."""
    return x.reshape(-1, context), y.reshape(-1, context)


def val_batches(
    text: TokenStream | Sequence[NDArray[Any]], context: int, rows: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A whole split in windows that do not overlap: see `eval_windows`.

    Arrays of tokens are scored whole; a stream of a set with conversations knows its answers.
    """
    stream = text if isinstance(text, TokenStream) else TokenStream(text)
    yield from eval_windows(stream, context, rows, first)


def split_windows(
    data: PreparedData, split: str, context: int, rows: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The windows in which a split is scored: as `eval_windows`, and a set with conversations as
    `conversation_windows`."""
    stream, first = data.stream(split), data.tokenizer.end
    if data.chat is None:
        return eval_windows(stream, context, rows, first)
    starts, lengths = documents(data, split)
    return conversation_windows(stream, starts + lengths, context, rows, first)


def eval_windows(
    stream: TokenStream | DocumentSubset, context: int, rows: int, first: int, stride: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows that score every token once, in order: (<= rows, context) inputs and targets.

    Windows are `stride` tokens apart (0: `context`, no overlap). Each scores its last `stride`
    targets, the first window all of them, so that every later token has at least `context` -
    `stride` tokens before it. Targets that are not scored, and those past the end, are IGNORE. The
    input before the first token is `first` (the end-of-text token), so that every token is scored.
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
        if is_masked(stream):
            own = tokens[1 : stop - start + 1].copy()
            stream.mask(start, own)
            unscored = np.concatenate([own == IGNORE, np.ones(len(tokens) - 1 - len(own), bool)])
            targets[unscored[at]] = IGNORE
        yield torch.from_numpy(tokens[at]), torch.from_numpy(targets)


def conversation_windows(
    stream: TokenStream | DocumentSubset,
    ends: Ints,
    context: int,
    rows: int,
    first: int,
    stride: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`eval_windows` of each document of the stream for itself, as a chat begins: no window holds
    two of them. `ends`: (D,), the position after each document."""
    held: list[tuple[Tensor, Tensor]] = []
    for own in apart(stream, ends):
        for x, y in eval_windows(own, context, rows, first, stride):
            held += zip(x, y, strict=True)
        while len(held) >= rows:
            yield _stacked(held[:rows])
            held = held[rows:]
    if held:
        yield _stacked(held)


def _stacked(windows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    x, y = zip(*windows, strict=True)
    return torch.stack(x), torch.stack(y)
