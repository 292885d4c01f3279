"""JSON files of rows: an object per line, objects over several lines, or one array of objects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from holo_cli.data.remote import SourcePath
from holo_cli.data.sources.decoding import text_blocks
from holo_cli.data.sources.rows import (
    TextRow,
    field_names,
    field_of,
    language_of,
    lines_of,
    no_column,
)
from holo_cli.errors import DataError, UsageError
from holo_cli.parsing import MAX_LOG_BYTES, ParseError, iterate_values, parse_json

_TYPES = {
    dict: "objects", list: "lists", int: "numbers", float: "numbers", bool: "true or false",
}  # fmt: skip
_BAD = object()  # stands for a row that is not JSON


def read_json_rows(
    path: SourcePath, encoding: str, field: str, counts: Counter[str]
) -> Iterator[TextRow]:
    """Text in `field` (dotted for a nested one), language in "language" or "lang".

    Rows that are not JSON, or whose text is not a string, are counted in `counts` and skipped.
    Raises UsageError if no row has the field, DataError if the file has no rows.
    """
    names: dict[str, None] = {}
    other = ""  # the type of a value in `field` that is no text
    found, objects, bad = False, 0, 0
    lists: list[str] = []  # fields of the first object that hold lists of objects
    for row in json_rows(path, encoding):
        if not isinstance(row, dict):
            bad += 1
            counts["bad lines"] += 1
            continue
        objects += 1
        text = field_of(row, field)
        if not isinstance(text, str):
            counts["bad lines"] += 1
            if text is not None and not other:
                other = _TYPES[type(text)]
            if not found and len(names) < 100:
                names |= dict.fromkeys(field_names(row))
            if objects == 1:
                lists = [key for key, value in row.items() if _holds_rows(key, value)]
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
    if objects == 1 and lists:
        raise DataError(
            f"{path} is one JSON object; its rows are in the field '{lists[0]}'.",
            next_step="Write each row as one line, for example with: "
            f"jq -c '.{lists[0]}[]' FILE.json > FILE.jsonl",
        )
    if objects:
        raise no_column(path, field, [*names])
    if bad:
        raise DataError(
            f"{path} has no rows: it is neither JSON lines (an object per line) nor an array of "
            "objects.",
            next_step="Write each row as an object on a line of its own.",
        )


def _holds_rows(key: str, value: Any) -> bool:
    """Whether a field is a list of objects, and its name can stand in a command."""
    listed = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    return listed and key.isidentifier() and len(key) < 40


def json_rows(path: SourcePath, encoding: str) -> Iterator[Any]:
    """Every row, parsed; `_BAD` for a line that is not JSON."""
    blocks = text_blocks(path, encoding)
    head = next((block for block in blocks if block.strip()), "")
    # a line of "{" alone begins an object over several lines
    if re.match(r"\s*(\[|\{\s*[\r\n])", head):
        yield from _values(path, chain([head], blocks))
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


def _values(path: SourcePath, blocks: Iterable[str]) -> Iterator[Any]:
    try:
        yield from iterate_values(blocks)
    except ParseError as error:
        raise DataError(
            f"{path} is neither valid JSON nor JSON lines: {error}.",
            next_step="Correct the file, or write each row as one line (JSON lines).",
        ) from error
