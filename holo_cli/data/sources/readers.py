"""One reader per kind of local file: a path in, texts out, bad rows counted and passed over.

A row is bad when it is not JSON, has too few columns, or has no text where text should be. A
column that no row could have is not a bad row but a wrong flag, and is refused by name.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from holo_cli.data import segment
from holo_cli.data.sources.decoding import open_bytes, readable, text_blocks
from holo_cli.errors import DataError, UsageError

Row = tuple[str, str]  # text and language ("" if the row does not say)
LANGUAGE_FIELDS = ("language", "lang")
_SHOWN = 8  # columns named in an error


def read_text(path: Path, encoding: str) -> Iterator[Row]:
    """txt and md: documents at two empty lines, or pieces of a file that has too few of them."""
    separators = segment.count_separators(text_blocks(path, encoding))
    blocks = text_blocks(path, encoding)
    for text in segment.documents(blocks, whole=separators >= segment.ENOUGH):
        yield text, ""


def read_jsonl(path: Path, encoding: str, field: str, counts: Counter[str]) -> Iterator[Row]:
    """One JSON object a line, its text under `field`, its language under "language" or "lang"."""
    seen: set[str] = set()
    found = False
    for line in _lines(path, encoding):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            counts["bad lines"] += 1
            continue
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            counts["bad lines"] += 1
            if isinstance(row, dict) and len(seen) < 100:
                seen.update(key for key, value in row.items() if isinstance(value, str))
            continue
        found, line = True, ""  # not to keep a giant line beside its text
        yield row[field], _language(row)
    if not found and seen:
        raise _no_column(path, field, sorted(seen))


def read_table(path: Path, encoding: str, field: str, counts: Counter[str]) -> Iterator[Row]:
    """csv (quoted) and tsv (never quoted); `field` is a column's name, or its number from 1."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    rows = _rows(path, encoding, counts)
    header = next(rows, None)
    if header is None:
        return
    if field.isdecimal() and int(field) >= 1:
        column, columns = int(field) - 1, len(header)
        if column >= columns:
            raise _no_column(path, field, header)
        first: list[list[str]] = [header]  # a column asked for by number: there is no header
    elif field in header:
        column, columns, first = header.index(field), len(header), []
    else:
        raise _no_column(path, field, header)
    language = next((header.index(f) for f in LANGUAGE_FIELDS if f in header), None)
    for row in (row for part in (first, rows) for row in part):
        if len(row) != columns:
            counts["bad lines"] += 1
        elif row is not header or first:
            yield row[column], row[language] if language is not None else ""


def read_parquet(path: Path, field: str, counts: Counter[str]) -> Iterator[Row]:
    """Rows of a parquet file in batches; its text under `field`."""
    import pyarrow
    import pyarrow.parquet

    try:
        with _whole(path) as raw, pyarrow.parquet.ParquetFile(raw) as file:
            names = file.schema_arrow.names
            if field not in names:
                raise _no_column(path, field, names)
            columns = [field, *(f for f in LANGUAGE_FIELDS if f in names)]
            for batch in file.iter_batches(batch_size=256, columns=columns):
                for row in batch.to_pylist():
                    if isinstance(row[field], str):
                        yield row[field], _language(row)
                    else:
                        counts["bad lines"] += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}.") from error


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """The file for reading in any order: a compressed one is unpacked beside first."""
    with open_bytes(path) as file, tempfile.TemporaryFile() as unpacked:
        if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
            yield file
            return
        with readable(path):
            shutil.copyfileobj(file, unpacked)
        unpacked.seek(0)
        yield unpacked


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines as they stand between line feeds, whatever their length."""
    with (
        open_bytes(path) as file,
        io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="\n") as text,
        readable(path),
    ):
        yield from text


def _rows(path: Path, encoding: str, counts: Counter[str]) -> Iterator[list[str]]:
    tabs = ".tsv" in path.suffixes
    lines = _lines(path, encoding)
    reader = (
        csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if tabs
        else csv.reader(lines, skipinitialspace=True)
    )
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            counts["bad lines"] += 1
            continue
        if row:
            yield row


def _language(row: dict[str, Any]) -> str:
    return next((row[f] for f in LANGUAGE_FIELDS if isinstance(row.get(f), str)), "")


def _no_column(path: Path, field: str, columns: list[str]) -> UsageError:
    shown = ", ".join(column[:40] for column in columns[:_SHOWN])
    more = ", ..." if len(columns) > _SHOWN else ""
    return UsageError(
        f"{path} has no text column '{field}'; it has: {shown}{more}.",
        next_step="Name the column that holds the text with --text-field "
        "(csv and tsv files without a header: its number, from 1).",
    )
