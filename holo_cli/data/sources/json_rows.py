"""JSON files of rows: an object per line, or one array of objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from holo_cli.data.sources.decoding import text_blocks
from holo_cli.data.sources.rows import (
    Row,
    field_names,
    field_of,
    language_of,
    lines_of,
    no_column,
)
from holo_cli.errors import DataError, UsageError
from holo_cli.parsing import MAX_LOG_BYTES, ParseError, iterate_array, parse_json

_TYPES = {
    dict: "objects", list: "lists", int: "numbers", float: "numbers", bool: "true or false",
}  # fmt: skip
_BAD = object()  # stands for a row that is not JSON


def read_json(path: Path, encoding: str, field: str, counts: Counter[str]) -> Iterator[Row]:
    """Text in `field` (dotted for a nested one), language in "language" or "lang".

    Rows that are not JSON, or whose text is not a string, are counted in `counts` and skipped.
    Raises UsageError if no row has the field, DataError if the file has no rows.
    """
    names: dict[str, None] = {}
    other = ""  # the type of a value in `field` that is no text
    found, objects, bad = False, False, 0
    for row in _rows(path, encoding):
        if not isinstance(row, dict):
            bad += 1
            counts["bad lines"] += 1
            continue
        objects = True
        text = field_of(row, field)
        if not isinstance(text, str):
            counts["bad lines"] += 1
            if text is not None and not other:
                other = _TYPES[type(text)]
            if not found and len(names) < 100:
                names |= dict.fromkeys(field_names(row))
            continue
        found = True
        yield text, language_of(row)
    if found:
        return
    if other:
        raise UsageError(
            f"The field '{field}' of {path} holds {other}, not text.",
            next_step="Name the text field with --text-field.",
        )
    if objects:
        raise no_column(path, field, [*names])
    if bad:
        raise DataError(
            f"{path} has no rows: it is neither JSON lines (an object per line) nor an array of "
            "objects.",
            next_step="Write each row as one line, for example with: jq -c '.[]'",
        )


def _rows(path: Path, encoding: str) -> Iterator[Any]:
    """Every row, parsed; `_BAD` for a line that is not JSON."""
    blocks = text_blocks(path, encoding)
    head = next((block for block in blocks if block.strip()), "")
    if head.lstrip().startswith("["):
        yield from _array(path, chain([head], blocks))
        return
    for line in lines_of(path, encoding):
        line = line.strip()
        if line:
            yield _parsed(line)


def _parsed(line: str) -> Any:
    try:
        return parse_json(line.removesuffix(","), limit=MAX_LOG_BYTES, lenient=True)
    except ParseError:
        return _BAD


def _array(path: Path, blocks: Iterable[str]) -> Iterator[Any]:
    try:
        yield from iterate_array(blocks)
    except ParseError as error:
        raise DataError(
            f"{path} is not a valid JSON array: {error}.",
            next_step="Correct the file, or write each row as one line (JSON lines).",
        ) from error
