"""What followed the longest earlier match of the last tokens, in the same text and document.

Of the tokens x_0 .. x_t, run(t, j) is the number of tokens in which the texts that end at t and at
j < t agree backwards:

    run(t, j) = run(t - 1, j - 1) + 1  where x_t = x_j in one document, else 0
    j*(t)     = the last j of those whose run is longest;   proposed: p = x_{j* + 1}, if run > 0

The hidden state h, ready for the head, is moved towards the head's row of the proposed token, by a
gate that knows how long the match is and what the model itself expects:

    h' = h + (w_l . h + b_l) W_p / rms(W_p)      l: the length's level; w and b learned, from zero

so that the logit of p rises and those of tokens with a similar row a little. (A bonus to one logit
would have to travel beside the hidden states through everything that reads them.) Proposing what
followed the longest match is the exact form of what attention's induction heads learn (Olsson et
al. 2022, arXiv 2209.11895); Akyurek et al. 2024 (arXiv 2401.12973) gain from n-gram heads.

A state may begin with tokens that the model itself does not read (`SuffixState.recalling`): what
has left its context, and texts of a conversation's memory. They are matched as any others.

Along a lag t - j the run is the distance to the last place that differed: a cumulative maximum.
Decoding keeps run(t, j) of the last t for every j and moves it on by one comparison: what a suffix
automaton finds, without pointers, for many rows at once. Legend: B rows, S new positions, n tokens
before them, C width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import Positions
from holo_cli.layers.static import StaticPositions, static_positions

NOTHING = -1  # a token that equals no other: before the start, or of an earlier document
FOREIGN = 1 << 30  # added to a token of another text: every document may match it
MOST_RECALLED = 1 << 16  # tokens; a step compares all of them
LEAST_ROOM = 512  # for recalled tokens; twice as many, .. where they do not fit
STATE_BYTES = 8  # of a state, for each token
AT_A_TIME = 1 << 21  # pairs of positions
LONGEST = (1, 2, 4, 8, 16)  # match of each level of lengths; a last level has all longer ones


class SuffixState:
    """Of each row the tokens so far and run(t, j) of the last position t, (B, n) int32 each.

    Aligned at their ends: rows that have read fewer tokens than others begin with `NOTHING`.
    `recalled` of the n positions are of tokens that the model has not read.
    """

    def __init__(self, tokens: Tensor, runs: Tensor, recalled: int = 0) -> None:
        self.tokens, self.runs, self.recalled = tokens, runs, recalled

    @staticmethod
    def start(rows: int, device: torch.device) -> SuffixState:
        empty = torch.zeros(rows, 0, dtype=torch.int32, device=device)
        return SuffixState(empty, empty)

    def recalling(
        self, texts: Sequence[Sequence[int]], past: Sequence[Sequence[int]]
    ) -> SuffixState:
        """A state of no tokens, able to match these: other texts, for all rows alike, and what
        stands before each row in its own text.

        Of more than `MOST_RECALLED` tokens the last are taken.
        """
        assert not self.tokens.numel()
        foreign: list[int] = []
        for text in texts:
            foreign += [*(token + FOREIGN for token in text), NOTHING]
        rows = [[*foreign, *own][-MOST_RECALLED:] for own in past]
        longest = max(map(len, rows))
        if not longest:
            return self
        # few sizes, since a compiled step is made for one
        room = max(LEAST_ROOM, 1 << (longest - 1).bit_length())
        padded = [[NOTHING] * (room - len(row)) + row for row in rows]
        tokens = torch.tensor(padded, dtype=torch.int32, device=self.tokens.device)
        return SuffixState(tokens, torch.zeros_like(tokens), room)

    def select(self, rows: Tensor) -> SuffixState:
        tokens, runs = self.tokens.index_select(0, rows), self.runs.index_select(0, rows)
        return SuffixState(tokens, runs, self.recalled)

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.tokens, self.runs)

    def kind(self) -> tuple[object, ...]:
        """What states that are joined have in common (`layers/joined.py`): nothing."""
        return ()

    @property
    def position(self) -> Positions:
        return self.tokens.shape[1]

    @staticmethod
    def joined(states: Sequence[SuffixState], position: Positions) -> SuffixState:
        """The rows of all: a copy, as long as the longest."""
        longest = max(state.tokens.shape[1] for state in states)

        def together(parts: Sequence[Tensor], filler: int) -> Tensor:
            pad = nn.functional.pad
            return torch.cat([pad(p, (longest - p.shape[1], 0), value=filler) for p in parts])

        tokens = together([state.tokens for state in states], NOTHING)
        recalled = max(state.recalled for state in states)
        return SuffixState(tokens, together([state.runs for state in states], 0), recalled)

    def static(self, room: int) -> StaticSuffix:
        """A copy that neither grows nor moves (`layers/static.py`)."""
        rows, count = self.tokens.shape
        room += self.recalled
        front = (room - count, 0)
        return StaticSuffix(
            nn.functional.pad(self.tokens, front, value=NOTHING),
            nn.functional.pad(self.runs, front),
            static_positions(count, rows, room, self.tokens.device),
            self.recalled,
        )


class StaticSuffix(SuffixState):
    """The same with room for all tokens: those that are not read yet are `NOTHING`, in front."""

    def __init__(
        self, tokens: Tensor, runs: Tensor, count: StaticPositions, recalled: int = 0
    ) -> None:
        super().__init__(tokens, runs, recalled)
        self.count = count

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.tokens, self.runs, self.count.of_rows)

    def followed_by(self, after: SuffixState) -> StaticSuffix:
        """`after`, a state with more positions, as long as this one."""
        new = after.tokens.shape[1] - self.tokens.shape[1]
        tokens, runs = after.tokens[:, new:], after.runs[:, new:]
        return StaticSuffix(tokens, runs, self.count + new, self.recalled)

    def plain(self) -> SuffixState:
        """A copy as an ordinary state; all rows have read as many tokens."""
        first = self.tokens.shape[1] - int(self.count.of_rows[0])
        tokens, runs = self.tokens[:, first:].clone(), self.runs[:, first:].clone()
        return SuffixState(tokens, runs, self.recalled)


class Matches(NamedTuple):
    """For each of S positions the proposed token, 0 where there is none, and how many tokens
    matched, (B, S) int64 each; and the state after them."""

    proposed: Tensor
    length: Tensor
    state: SuffixState


@torch.no_grad()
def longest_matches(tokens: Tensor, before: SuffixState | None, end: int) -> Matches:
    """(B, S) int64 next tokens, what came before them, and the token that begins a document, -1
    for none."""
    if before is None:
        before = SuffixState.start(tokens.shape[0], tokens.device)
    # a scan over time at once takes a CPU twenty times as long as one position after the other
    in_turn = tokens.device.type == "cpu" and not torch.compiler.is_compiling()
    found = (_in_turn if in_turn else _at_once)(tokens.to(torch.int32), before, end)
    if isinstance(before, StaticSuffix):
        return found._replace(state=before.followed_by(found.state))
    return found


def _in_turn(new: Tensor, before: SuffixState, end: int) -> Matches:
    """By the recurrence, position by position: for CPUs."""
    rows, size = new.shape
    past = before.tokens.shape[1]  # n
    count = past + size
    text = np.concatenate((before.tokens.numpy(), new.numpy()), axis=1)
    foreign = text >= FOREIGN
    text[foreign] -= FOREIGN
    runs: NDArray[Any] = np.zeros((rows, count + 1), dtype=np.int32)  # of position j at j + 1
    runs[:, 1 : past + 1] = before.runs.numpy()
    kind: type[np.int32 | np.int64] = np.int64 if count**2 >= 2**31 else np.int32
    number: NDArray[Any] = np.arange(count, dtype=kind)
    stride = kind(count)
    length, proposed = np.zeros((2, rows, size), dtype=np.int64)
    every = np.arange(rows)
    for i, t in enumerate(range(past, count)):
        token = text[:, t, None]
        if end >= 0 and (begins := token[:, 0] == end).any():
            text[:, :t][begins[:, None] & ~foreign[:, :t]] = NOTHING
        run = runs[:, :t] + 1
        run *= text[:, :t] == token
        runs[:, 1 : t + 1] = run
        if t:
            at = (run * stride + number[:t]).argmax(1)  # last of the longest
            length[:, i] = run[every, at]
            proposed[:, i] = text[every, at + 1]
    length[proposed == NOTHING] = 0  # the end of another text
    proposed[length == 0] = 0
    text[foreign] += FOREIGN
    kept = torch.from_numpy(text), torch.from_numpy(runs[:, 1:].copy())
    state = SuffixState(*kept, before.recalled)
    return Matches(torch.from_numpy(proposed), torch.from_numpy(length), state)


def _at_once(new: Tensor, before: SuffixState, end: int) -> Matches:
    """For all positions together, lag by lag: a run is the distance to the last difference."""
    rows, size = new.shape
    text = torch.cat((before.tokens, new), dim=1)
    past = text.shape[1] - size  # n
    lags = past + size - 1
    document = ((new == end) & (new >= 0)).to(torch.int32).cumsum(1, dtype=torch.int32)
    # tokens of different documents are different; those of the past are of document 0
    several = document.max() + 1
    marked_new = new * several + document
    foreign = text >= FOREIGN
    marked = torch.where((text == NOTHING) | foreign, NOTHING, text * several)
    marked[:, past:] = marked_new
    # window w holds, for each new position, the one n + S - 1 - w before it
    windows = nn.functional.pad(marked, (size - 1, 0), value=NOTHING).unfold(1, size, 1)
    others: Tensor | None = None  # the same windows of other texts
    if before.recalled:
        plain = torch.where(foreign, text - FOREIGN, NOTHING)
        others = nn.functional.pad(plain, (size - 1, 0), value=NOTHING).unfold(1, size, 1)
    known = nn.functional.pad(before.runs, (size, 0))[:, :lags]  # of the position before
    wide = torch.int64 if (past + size) ** 2 >= 2**31 else torch.int32
    time = torch.arange(size, dtype=wide, device=text.device)
    best = torch.zeros(rows, size, dtype=wide, device=text.device)
    after = torch.zeros_like(text)
    step = max(1, AT_A_TIME // (rows * size))
    for first in range(0, lags, step):
        at = slice(first, min(first + step, lags))
        same = windows[:, at] == marked_new[:, None]
        if others is not None:
            same |= others[:, at] == new[:, None]
        broken = torch.where(same, -1 - known[:, at, None].to(wide), time)
        run = time - broken.cummax(2).values
        after[:, at] = run[:, :, -1]
        number = torch.arange(at.start, at.stop, dtype=wide, device=text.device)
        best = torch.maximum(best, (run * (lags + 1) + number[:, None]).amax(1))
    length = torch.div(best, lags + 1, rounding_mode="floor").to(torch.int64)
    window = best.to(torch.int64) - length * (lags + 1)
    source = (window + time - (size - 2)).clamp(0, past + size - 1)
    proposed = torch.where(foreign, text - FOREIGN, text).gather(1, source).to(torch.int64)
    length = length * (proposed != NOTHING)  # the end of another text
    # what lies before the last document is never matched again
    old = (nn.functional.pad(document, (past, 0)) < document[:, -1:]) & ~foreign
    state = SuffixState(text.masked_fill(old, NOTHING), after, before.recalled)
    return Matches(proposed * (length > 0), length, state)


class SuffixMemory(nn.Module):
    """The gate: hidden states (B, S, C), ready for the head, with what the past proposes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        # one-dimensional, since weight decay applies to matrices
        self.weight = nn.Parameter(torch.empty((len(LONGEST) + 1) * width))
        self.bias = nn.Parameter(torch.empty(len(LONGEST) + 1))

    def initialise(self) -> None:
        """Nothing is added at first."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def gate(self, x: Tensor, matches: Matches) -> Tensor:
        """What the row of the proposed token is multiplied by, (B, S); 0 where there is none."""
        longest = torch.tensor(LONGEST, device=x.device)
        level = torch.bucketize(matches.length, longest)
        weight = nn.functional.embedding(level, self.weight.view(-1, self.width)).to(x.dtype)
        gate = torch.linalg.vecdot(weight, x) + self.bias[level].to(x.dtype)
        return gate * (matches.length > 0)

    def forward(self, x: Tensor, matches: Matches, rows: Tensor) -> Tensor:
        """`rows` (B, S, C): the head's, of the proposed tokens."""
        return torch.addcmul(x, self.gate(x, matches)[..., None], rms_norm(rows.to(x.dtype)))
