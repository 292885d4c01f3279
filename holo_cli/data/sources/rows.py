"""What the readers of files with rows share: the text and the language of a row, and its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holo_cli.data.remote import SourcePath
from holo_cli.data.segment import unix_lines
from holo_cli.data.sources.decoding import text_blocks
from holo_cli.errors import DataError, UsageError
from holo_cli.parsing import MAX_ELEMENT

TextRow = tuple[str, str]  # text and language ("" if unknown)
LANGUAGE_FIELDS = ("language", "lang")
_SHOWN = 8  # columns named in an error


def lines_of(path: SourcePath, encoding: str, limit: int = MAX_ELEMENT) -> Iterator[str]:
    """The lines of a file, each with "\\n" for a line end of CR, LF or both.

    Raises DataError for a line of more than `limit` characters: a small archive may hold a line
    that is larger than the memory.
    """
    number, size = 1, 0
    held: list[str] = []  # the beginning of a line
    for block in unix_lines(text_blocks(path, encoding)):
        first, *more = block.split("\n")
        held.append(first)
        size += len(first)
        if size > limit:
            raise DataError(
                f"Line {number:,} of {path} has more than {limit:,} characters.",
                next_step="Divide it into several rows.",
            )
        if not more:
            continue
        yield "".join(held) + "\n"
        for line in more[:-1]:
            yield line + "\n"
        number += len(more)
        held, size = more[-1:], len(more[-1])
    if size:
        yield "".join(held)


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


def no_column(path: SourcePath, field: str, columns: Sequence[str]) -> UsageError:
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
