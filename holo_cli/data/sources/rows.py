"""What the readers of files with rows share: the text and the language of a row, and its errors."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holo_cli.data.sources.decoding import open_bytes, readable
from holo_cli.errors import UsageError

Row = tuple[str, str]  # text and language ("" if unknown)
LANGUAGE_FIELDS = ("language", "lang")
_SHOWN = 8  # columns named in an error


def lines_of(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file, of any length; they end in CR, LF or both, as in a text file."""
    with (
        open_bytes(path) as file,
        io.TextIOWrapper(file, encoding=encoding, errors="replace", newline=None) as text,
        readable(path),
    ):
        yield from text


def field_of(row: Mapping[str, Any], field: str) -> Any:
    """The value of a field, also of a nested one: "meta.text" is the `text` in `meta`."""
    if field in row or "." not in field:
        return row.get(field)
    first, _, rest = field.partition(".")
    inner = row.get(first)
    return field_of(inner, rest) if isinstance(inner, Mapping) else None


def field_names(row: Mapping[str, Any], prefix: str = "", depth: int = 3) -> list[str]:
    """The names of a row's fields; of nested rows those of their fields, dotted."""
    names: list[str] = []
    for key, value in row.items():
        name = f"{prefix}{key}"
        nested = isinstance(value, Mapping) and value and depth > 1
        names += field_names(value, f"{name}.", depth - 1) if nested else [name]
    return names


def language_of(row: Mapping[str, Any]) -> str:
    return next((row[f] for f in LANGUAGE_FIELDS if isinstance(row.get(f), str)), "")


def no_column(path: Path, field: str, columns: Sequence[str]) -> UsageError:
    """The error for a text field that a file does not have."""
    return UsageError(
        f"{path} has no text column '{field}'; it has: {shown(columns)}.",
        next_step="Name the text column with --text-field (for csv and tsv files without a "
        "header: its number, from 1).",
    )


def shown(columns: Sequence[str]) -> str:
    """The first few names of columns."""
    more = ", ..." if len(columns) > _SHOWN else ""
    return ", ".join(column[:40] for column in columns[:_SHOWN]) + more
