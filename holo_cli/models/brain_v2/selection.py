"""Causal selection of tokens, and the cache of their keys and values.

A token is selected if its score passes a threshold, which training moves to the (1 - share)
quantile of scores, and if there is capacity: of the first t + 1 tokens at most ceil(2 share
(t + 1)) may be. Unlike a top-k over the sequence, no later token can displace an earlier one. With
p_t the number that passed up to t and r_t the capacity, the number selected is

    n_t = min(n_{t-1} + 1, r_t) where t passes, else n_{t-1}
        = p_t + min(n_before, min_{s <= t} (r_s - p_s))

the second form, which needs no loop over positions, because capacity never decreases. Legend: B
rows, S positions, H heads, d per head, R capacity of a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from holo_cli.layers.positions import Positions, following, most
from holo_cli.layers.state import DataState
from holo_cli.layers.static import StaticPositions, static_positions

SLACK = 2.0  # capacity / share: passages differ in how many tokens pass


def capacity(length: int, share: float) -> int:
    """How many of the first `length` tokens may be selected."""
    return min(length, math.ceil(min(SLACK * share, 1.0) * length))


def selected_counts(passes: Tensor, share: float, start: Positions, before: Tensor) -> Tensor:
    """passes (B, S) bool at positions start.., `before` (B,) already selected -> n (B, S), the
    number selected up to each position."""
    # in float64 on the host, to equal `capacity` exactly
    made_on = torch.device("cpu") if isinstance(start, int) else passes.device
    length = following(start + 1, passes.shape[1], made_on).to("cpu")
    rooms = torch.minimum(length, (min(SLACK * share, 1.0) * length.double()).ceil().long())
    passed = passes.cumsum(1)
    free = rooms.to(passes.device) - passed
    return passed + torch.minimum(before[:, None], free.cummin(1).values)


@dataclass(frozen=True)
class Selected:
    """The selected of (B, S) positions, packed row by row in order of time.

    Padded, each row has as many as there is capacity for, whatever the data: a shape that
    torch.compile can know. Those that are not selected come last in their row and are not `real`.
    """

    flat: Tensor  # (N,) indices in (B S)
    row: Tensor  # (N,)
    slot: Tensor  # (N,) number selected before in the row
    position: Tensor  # (N,) in the whole sequence
    count: Tensor  # (B,) selected by the end
    end: int  # positions in the whole sequence, start + S
    real: Tensor | None = None  # (N,) bool; None: all are

    @staticmethod
    def of(
        passes: Tensor, share: float, start: Positions = 0, before: Tensor | None = None
    ) -> Selected:
        """From what passes the threshold, (B, S) bool, after `before` (B,) selected ones."""
        rows, length = passes.shape
        if before is None:
            before = torch.zeros(rows, dtype=torch.int64, device=passes.device)
        counts = selected_counts(passes, share, start, before)
        taken = counts > torch.cat((before[:, None], counts[:, :-1]), dim=1)
        flat = taken.flatten().nonzero()[:, 0]
        row = torch.div(flat, length, rounding_mode="floor")
        first = start if isinstance(start, int) else start.of_rows[row]
        position = flat - row * length + first
        end = most(start) + length
        return Selected(flat, row, counts.flatten()[flat] - 1, position, counts[:, -1], end)

    @staticmethod
    def padded(passes: Tensor, share: float) -> Selected:
        """The same of whole sequences, N = B K with K the capacity (1 at least)."""
        rows, length = passes.shape
        none = torch.zeros(rows, dtype=torch.int64, device=passes.device)
        counts = selected_counts(passes, share, 0, none)
        taken = counts > torch.cat((none[:, None], counts[:, :-1]), dim=1)
        time = torch.arange(length, device=passes.device)
        room = max(1, capacity(length, share))
        position = torch.where(taken, time, length).sort(dim=1).values[:, :room]
        real = position < length
        position = position.clamp_max(length - 1)
        row = torch.arange(rows, device=passes.device)[:, None].expand_as(position)
        slot = torch.arange(room, device=passes.device).expand_as(position)
        return Selected(
            (row * length + position).flatten(),
            row.flatten(),
            slot.flatten(),
            position.flatten(),
            counts[:, -1],
            length,
            real.flatten(),
        )


class PackedCache:
    """Keys and values of selected tokens, (B, H, R, d) each, R the capacity at `position`; each row
    has filled `count` slots. A value: if two states continue one, the second to do so copies."""

    def __init__(
        self, keys: Tensor, values: Tensor, count: Tensor, position: Positions, share: float
    ) -> None:
        self.keys, self.values, self.count, self.position = keys, values, count, position
        self.share = share
        self._buffers = [keys, values]  # more slots than R, to grow into
        self._mark = object()
        self._owner = [
            self._mark
        ]  # shared by all caches on these buffers: of the one that may write

    def append(
        self, new: Selected, k: Tensor, v: Tensor, position: Positions, size: int
    ) -> PackedCache:
        """A cache up to `position` with capacity `size` and the new keys and values, (N, H, d)."""
        buffers, owner = self._with_room(size)
        for buffer, piece in zip(buffers, (k, v), strict=True):
            # under autocast a piece may have fewer bits; unlike a slice, an index does not convert
            buffer[new.row, :, new.slot] = piece.to(buffer.dtype)
        return self._continued(buffers, owner, new.count, position, size)

    def passed(self, position: Positions, size: int) -> PackedCache:
        """As `append`, where no row has selected anything."""
        buffers, owner = self._with_room(size)
        return self._continued(buffers, owner, self.count, position, size)

    def _with_room(self, size: int) -> tuple[list[Tensor], list[object]]:
        """Buffers of at least `size` slots that this cache may write to, and who owns them."""
        slots = self._buffers[0].shape[2]
        if self._owner[0] is self._mark and slots >= size:
            return self._buffers, self._owner
        slots = max(16, 1 << (size - 1).bit_length()) if size else 0
        buffers = []
        for old in (self.keys, self.values):
            grown = old.new_zeros(*old.shape[:2], slots, old.shape[3])
            grown[:, :, : old.shape[2]] = old
            buffers.append(grown)
        return buffers, [self._mark]

    def _continued(
        self,
        buffers: list[Tensor],
        owner: list[object],
        count: Tensor,
        position: Positions,
        size: int,
    ) -> PackedCache:
        keys, values = (buffer[:, :, :size] for buffer in buffers)
        cache = PackedCache(keys, values, count, position, self.share)
        cache._buffers, cache._owner = buffers, owner
        owner[0] = cache._mark
        return cache

    def select(self, rows: Tensor) -> PackedCache:
        keys, values, count = (
            t.index_select(0, rows) for t in (self.keys, self.values, self.count)
        )
        position = self.position if isinstance(self.position, int) else self.position.select(rows)
        return PackedCache(keys, values, count, position, self.share)

    def kind(self) -> tuple[object, ...]:
        """What caches that are joined have in common (`layers/joined.py`)."""
        shape = (self.keys.shape[1], self.keys.shape[3], str(self.keys.dtype))
        return (self.position, repr(shape))

    @staticmethod
    def joined(caches: Sequence[PackedCache], position: Positions) -> PackedCache:
        """The rows of all, which have read `position` tokens each: a copy with as many slots as the
        longest has."""
        slots = max(cache.keys.shape[2] for cache in caches)
        parts = []
        for pieces in ([c.keys for c in caches], [c.values for c in caches]):
            padded = [nn.functional.pad(p, (0, 0, 0, slots - p.shape[2])) for p in pieces]
            parts.append(torch.cat(padded))
        count = torch.cat([cache.count for cache in caches])
        return PackedCache(parts[0], parts[1], count, position, caches[0].share)

    def alone(self) -> PackedCache:
        """The cache of the only row, with plain positions."""
        if isinstance(self.position, int):
            return self
        return PackedCache(self.keys, self.values, self.count, self.position.row(0), self.share)

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.keys, self.values, self.count)

    def static(self, room: int) -> StaticPacked:
        """A copy that neither grows nor moves (`layers/static.py`)."""
        assert isinstance(self.position, int)
        rows, heads, filled, width = self.keys.shape
        device = self.keys.device
        capacities = [capacity(length, self.share) for length in range(room + 1)]
        parts = []
        for kept in (self.keys, self.values):
            # one slot more, for what a row without room would write
            part = kept.new_zeros(rows, heads, capacities[-1] + 1, width)
            part[:, :, :filled] = kept
            parts.append(part)
        return StaticPacked(
            static_positions(self.position, rows, room, device),
            parts[0],
            parts[1],
            self.count.clone(),
            torch.tensor(capacities, device=device),
            self.share,
        )


@dataclass(frozen=True)
class StaticPacked(DataState):
    """The same with slots for all that may ever be selected, (B, H, R + 1, d) each; `capacities`
    (room + 1,): how many of the first 0, 1, ... tokens may be."""

    position: StaticPositions
    keys: Tensor
    values: Tensor
    count: Tensor
    capacities: Tensor
    share: float

    def takes(self, passes: Tensor) -> Tensor:
        """Which rows' next token is selected, of those that pass the threshold, (B,) bool each."""
        return passes & (self.count < self.capacities[self.position.of_rows + 1])

    def append(self, taken: Tensor, k: Tensor, v: Tensor) -> StaticPacked:
        """The same buffers with keys and values (B, H, d) of the rows `taken`. The others' are
        written to the next free slot too, where nothing sees them."""
        rows = torch.arange(self.count.shape[0], device=self.count.device)
        for part, piece in ((self.keys, k), (self.values, v)):
            part[rows, :, self.count] = piece.to(part.dtype)
        return replace(self, position=self.position + 1, count=self.count + taken)

    def plain(self) -> PackedCache:
        """A copy as an ordinary cache; all rows have read as many tokens."""
        position = int(self.position.of_rows[0])
        size = capacity(position, self.share)
        keys, values = (part[:, :, :size].clone() for part in (self.keys, self.values))
        return PackedCache(keys, values, self.count.clone(), position, self.share)
