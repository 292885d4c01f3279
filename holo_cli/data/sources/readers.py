"""Readers of local files, one per kind: they yield texts, and count and skip invalid rows.

A row is invalid if it is not JSON, has the wrong number of columns, or has no text in the text
field. A text field that no row has is a wrong option and raises UsageError.
"""

from __future__ import annotations

import contextlib
import csv
import io
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
from holo_cli.parsing import MAX_LOG_BYTES, ParseError, parse_json

Row = tuple[str, str]  # text and language ("" if unknown)
LANGUAGE_FIELDS = ("language", "lang")
_SHOWN = 8  # columns named in an error


def read_text(path: Path, encoding: str) -> Iterator[Row]:
    """txt and md: split at two empty lines, or into pieces (see `segment`)."""
    separators = segment.count_separators(text_blocks(path, encoding))
    blocks = text_blocks(path, encoding)
    for text in segment.documents(blocks, whole=separators >= segment.ENOUGH):
        yield text, ""


def read_jsonl(path: Path, encoding: str, field: str, counts: Counter[str]) -> Iterator[Row]:
    """A JSON object per line: text in `field`, language in "language" or "lang"."""
    seen: set[str] = set()
    found = False
    for line in _lines(path, encoding):
        if not line.strip():
            continue
        try:
            row = parse_json(line, limit=MAX_LOG_BYTES, lenient=True)
        except ParseError:
            counts["bad lines"] += 1
            continue
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            counts["bad lines"] += 1
            if isinstance(row, dict) and len(seen) < 100:
                seen.update(key for key, value in row.items() if isinstance(value, str))
            continue
        found, line = True, ""  # frees a very long line before its text is processed
        yield row[field], _language(row)
    if not found and seen:
        raise _no_column(path, field, sorted(seen))


def read_table(path: Path, encoding: str, field: str, counts: Counter[str]) -> Iterator[Row]:
    """csv (quoted) and tsv (never quoted); `field` is a column name, or a number from 1."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    rows = _rows(path, encoding, counts)
    header = next(rows, None)
    if header is None:
        return
    if field.isdecimal() and int(field) >= 1:
        column, columns = int(field) - 1, len(header)
        if column >= columns:
            raise _no_column(path, field, header)
        first: list[list[str]] = [header]  # a column number implies that there is no header
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
    """parquet: text in the column `field`, language in "language" or "lang"."""
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
    """A seekable file: a compressed file is decompressed to a temporary file first."""
    with open_bytes(path) as file, tempfile.TemporaryFile() as unpacked:
        if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
            yield file
            return
        with readable(path):
            shutil.copyfileobj(file, unpacked)
        unpacked.seek(0)
        yield unpacked


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file, of any length, separated by line feeds alone."""
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
        next_step="Name the text column with --text-field (for csv and tsv files without a "
        "header: its number, from 1).",
    )
