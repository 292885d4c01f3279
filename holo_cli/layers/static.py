"""Decoding states in buffers that neither grow nor move: one graph serves all positions.

`torch.compile` makes a graph for the shapes and numbers that it sees. In an ordinary state both
change with every token: caches grow, and positions are Python numbers. Here a cache has room for
all positions from the start, a position is a tensor, and what a step computes is written over what
it was computed from. Such a state is not a value: a step changes it. CUDA graphs need this too,
because they replay the addresses that they have recorded.

Rows are as in `layers/joined.py`: each has a position of its own, and a mixer whose `step` takes
`RowPositions` takes these as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from holo_cli.errors import UsageError
from holo_cli.layers.cache import KVCache
from holo_cli.layers.positions import RowPositions
from holo_cli.layers.state import tensors_of


class StaticPositions(RowPositions):
    """A position for each row, all below `most` + 1, which never changes: shapes follow it."""

    def __add__(self, tokens: int) -> StaticPositions:
        return StaticPositions(self.of_rows + tokens, self.most)


class StaticCache(KVCache):
    """Keys and values in buffers (B, H, L, d_i) with room for all positions, written in place."""

    length: StaticPositions

    def __init__(self, parts: list[Tensor], length: StaticPositions) -> None:
        self.parts = parts
        self.length = length

    def append(self, *new: Tensor) -> StaticCache:
        """The same buffers with `new`, (B, H, 1, d_i) each, at the rows' positions."""
        at = self.length.of_rows
        rows = torch.arange(at.shape[0], device=at.device)
        for part, piece in zip(self.parts, new, strict=True):
            part[rows, :, at] = piece[:, :, 0].to(part.dtype)
        return StaticCache(self.parts, self.length + 1)

    def seen(self) -> Tensor:
        at = torch.arange(self.parts[0].shape[2], device=self.length.of_rows.device)
        return (at < self.length.of_rows[:, None])[:, None, None]

    def views(self) -> list[Tensor]:
        return self.parts

    def tensors(self) -> Iterator[Tensor]:
        yield from (*self.parts, self.length.of_rows)

    def plain(self) -> KVCache:
        """A copy as an ordinary cache; all rows have read as many tokens."""
        length = int(self.length.of_rows[0])
        return KVCache([part[:, :, :length].clone() for part in self.parts], length)


def static_state(value: Any, room: int) -> Any:
    """A copy of a state, or of what it consists of, in buffers for `room` positions.

    Raises UsageError for a part that has no such form.
    """
    like = next(tensors_of(value))
    return _static(value, like.shape[0], room, like.device)


def buffers(state: Any) -> Iterator[Tensor]:
    """All tensors of a static state, positions included, always in the same order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, StaticPositions):
        yield state.of_rows
    elif isinstance(state, tuple | list):
        for part in state:
            yield from buffers(part)
    elif is_dataclass(state):
        for f in fields(state):
            yield from buffers(getattr(state, f.name))
    elif state is not None and hasattr(state, "tensors"):
        yield from state.tensors()


def plain_state(state: Any) -> Any:
    """A copy of a static state as an ordinary one, a value; all rows are at one position."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, StaticPositions):
        return int(state.of_rows[0])
    if isinstance(state, tuple | list):
        parts = [plain_state(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if hasattr(state, "plain"):
        return state.plain()
    if is_dataclass(state) and not isinstance(state, type):
        return replace(
            state, **{f.name: plain_state(getattr(state, f.name)) for f in fields(state)}
        )
    return state


def static_positions(position: int, rows: int, room: int, device: torch.device) -> StaticPositions:
    """`position` of all rows; `room` - 1 is the largest that they may have before a step."""
    return StaticPositions(
        torch.full((rows,), position, dtype=torch.int64, device=device), room - 1
    )


def _static(value: Any, rows: int, room: int, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.clone(memory_format=torch.contiguous_format)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return static_positions(value, rows, room, device)
    if isinstance(value, tuple | list):
        parts = [_static(part, rows, room, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if type(value) is KVCache:
        return _static_cache(value, rows, room, device)
    if hasattr(value, "static"):
        return value.static(room)
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: _static(getattr(value, f.name), rows, room, device) for f in fields(value)}
        return replace(value, **named)
    raise UsageError(
        f"This model cannot decode compiled (--compile): a {type(value).__name__} of its decoding "
        "state has no form of constant size.",
        next_step="Omit --compile.",
    )


def _static_cache(cache: KVCache, rows: int, room: int, device: torch.device) -> StaticCache:
    assert isinstance(cache.length, int)
    parts = []
    for view in cache.views():
        # zeros, not empty: positions that are not seen are still multiplied, by a weight of zero
        part = view.new_zeros(view.shape[0], view.shape[1], room, view.shape[3])
        part[:, :, : cache.length] = view
        parts.append(part)
    return StaticCache(parts, static_positions(cache.length, rows, room, device))
