"""Decoding states of several requests as one state with their rows one after another, and back.

Rows may have read different numbers of tokens where a model says so (`mixed_lengths`): positions
become `RowPositions`, key-value caches `RowsCache`. States are values, so joining copies.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from holo_cli.layers.cache import KVCache
from holo_cli.layers.positions import RowPositions
from holo_cli.layers.state import selected as select_rows
from holo_cli.layers.state import tensors_of


def joined_states(states: Sequence[Any]) -> Any:
    """One state with the rows of all, in order. They must be of one kind (`state_kind`)."""
    sizes = [rows_of(state) for state in states]
    device = next(tensors_of(states[0])).device
    return _joined(states, sizes, device)


def rows_of(state: Any) -> int:
    """The number of rows of a state."""
    return next(tensors_of(state)).shape[0]


def row_of(state: Any, place: int) -> Any:
    """The state of one row alone, with plain positions: a copy."""
    rows = torch.tensor([place], device=next(tensors_of(state)).device)
    return _alone(select_rows(state, rows))


def state_kind(state: Any, mixed_lengths: bool) -> Hashable:
    """What two states must have in common to be joined: the shape of a row, and, unless
    `mixed_lengths`, their positions."""
    if isinstance(state, Tensor):
        return (*state.shape[1:], state.dtype)
    if isinstance(state, int | RowPositions):
        # rows of different lengths are continued by themselves where a model cannot mix them
        return 0 if mixed_lengths else state if isinstance(state, int) else id(state)
    if isinstance(state, tuple | list):
        return tuple(state_kind(part, mixed_lengths) for part in state)
    if hasattr(state, "kind"):
        return tuple(state_kind(part, mixed_lengths) for part in state.kind())
    if is_dataclass(state):
        return tuple(state_kind(getattr(state, f.name), mixed_lengths) for f in fields(state))
    if hasattr(state, "select"):
        # a cache of another form needs `kind` and `joined`, as KVCache has; until then it is alone
        return id(state)
    return repr(state)


def _joined(values: Sequence[Any], sizes: list[int], device: torch.device) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, int | RowPositions) and not isinstance(first, bool):
        return joined_positions(values, sizes, device)
    if isinstance(first, tuple | list):
        parts = [_joined(part, sizes, device) for part in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if isinstance(first, KVCache):
        return KVCache.joined(values, joined_positions([v.length for v in values], sizes, device))
    if hasattr(first, "joined"):
        return type(first).joined(
            values, joined_positions([v.position for v in values], sizes, device)
        )
    if is_dataclass(first) and not isinstance(first, type):
        named = {
            f.name: _joined([getattr(value, f.name) for value in values], sizes, device)
            for f in fields(first)
        }
        return replace(first, **named)
    return first


def joined_positions(
    values: Sequence[int | RowPositions], sizes: Sequence[int], device: torch.device
) -> int | RowPositions:
    """The positions of all rows: one number if they agree."""
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) == len(values) and len(set(numbers)) == 1:
        return numbers[0]
    parts = [
        torch.full((size,), value, dtype=torch.int64, device=device)
        if isinstance(value, int)
        else value.of_rows
        for value, size in zip(values, sizes, strict=True)
    ]
    most = max(value if isinstance(value, int) else value.most for value in values)
    return RowPositions(torch.cat(parts), most)


def _alone(value: Any) -> Any:
    """A state of one row with plain positions."""
    if isinstance(value, RowPositions):
        return value.row(0)
    if isinstance(value, tuple | list):
        parts = [_alone(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if hasattr(value, "alone"):
        return value.alone()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _alone(getattr(value, f.name)) for f in fields(value)})
    return value
