"""Decoding states as plain dataclasses: their rows are chosen, and their tensors found, by field.

A state is a value, never changed in place. Fields may be tensors with the rows along their first
dimension, other states, tuples and lists of these, None, and anything that is the same for all rows
(a position).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class DataState:
    """Base of frozen dataclasses that hold what is remembered of each row."""

    def select(self, rows: Tensor) -> Self:
        """The state of the given rows, (R,) int64, repeated or reordered: a copy."""
        chosen = {f.name: selected(getattr(self, f.name), rows) for f in fields(self)}
        return replace(self, **chosen)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that belongs to the state at its present position."""
        for f in fields(self):
            yield from tensors_of(getattr(self, f.name))


def selected(value: Any, rows: Tensor) -> Any:
    """`DataState.select` of one field."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, tuple | list):
        parts = [selected(part, rows) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if hasattr(value, "select"):
        return value.select(rows)
    return value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """`DataState.tensors` of one field, or of any state that a mixer returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part)
    elif hasattr(value, "tensors"):
        yield from value.tensors()
