"""csv (quoted) and tsv (never quoted) files, row by row.

A quote that is opened and never closed would make one field of everything after it. A row of
several lines that cannot be right is therefore given up at its first line, and reading resumes at
the next.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, deque
from collections.abc import Iterator

from holo_cli.data.remote import SourcePath
from holo_cli.data.sources.rows import LANGUAGE_FIELDS, TextRow, lines_of, no_column
from holo_cli.errors import DataError, UsageError

UNCLOSED = "unclosed quotes"
MAX_ROW = 64 << 20  # characters of a row, which is held in memory


def read_table(
    path: SourcePath, encoding: str, field: str, counts: Counter[str]
) -> Iterator[TextRow]:
    """`field` is a column name, or a number from 1 in a file without a header.

    Rows of another number of columns than the first one are counted in `counts` and skipped.
    Raises UsageError for a column that is not there, DataError for quotes beyond repair.
    """
    tsv = ".tsv" in [suffix.lower() for suffix in path.suffixes]
    rows = _rows(path, encoding, counts, tsv)
    header = next(rows, None)
    if header is None:
        return
    if field.isdecimal() and int(field) >= 1:
        column, columns = int(field) - 1, len(header)
        if column >= columns:
            raise no_column(path, field, header)
        first: list[list[str]] = [header]  # a column number implies that there is no header
    elif field in header:
        column, columns, first = header.index(field), len(header), []
    else:
        other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
        if other is not None:
            raise UsageError(
                f"The columns of {path} are not separated by {'tabs' if tsv else 'commas'}: its "
                f"first row is {header[0][:80]!r}.",
                next_step="Save the table as csv with commas, or as tsv with tabs.",
            )
        raise no_column(path, field, header)
    language = next((header.index(f) for f in LANGUAGE_FIELDS if f in header), None)
    for row in (row for part in (first, rows) for row in part):
        if len(row) != columns:
            counts["bad lines"] += 1
        elif row is not header or first:
            yield row[column], row[language] if language is not None else ""


class _RewindableLines:
    """Lines that can be put back. `taken` are those since the last `mark`."""

    def __init__(self, path: SourcePath, encoding: str) -> None:
        self.path, self.lines, self.taken = path, lines_of(path, encoding, MAX_ROW), list[str]()
        self._again: deque[str] = deque()
        self._number, self._held = 0, 0  # lines before those taken; characters of those

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self.lines)
        self.taken.append(line)
        self._held += len(line)
        if self._held > MAX_ROW:
            first = self._number + 1
            raise DataError(
                f"The row of {self.path} that begins in line {first} does not end: its quote is "
                "not closed.",
                next_step="Close the quote, or save the table as tsv.",
            )
        return line

    def mark(self) -> None:
        self._number += len(self.taken)
        self.taken, self._held = [], 0

    def put_back(self) -> None:
        """All but the first of the taken lines will come again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _rows(path: SourcePath, encoding: str, counts: Counter[str], tsv: bool) -> Iterator[list[str]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    lines = _RewindableLines(path, encoding)
    if tsv:
        reader = csv.reader(lines.lines, "excel-tab", quoting=csv.QUOTE_NONE)
        yield from filter(None, _tolerant(reader, counts))
        return
    columns = 0
    reader = csv.reader(lines, skipinitialspace=True)
    while True:
        lines.mark()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = []
        columns = columns or len(row)
        several = len(lines.taken) > 1
        if several and (len(row) != columns or not _well_quoted(lines.taken)):
            lines.put_back()
            counts[UNCLOSED] += 1
            reader = csv.reader(lines, skipinitialspace=True)
        elif row:
            yield row
        elif "".join(lines.taken).strip():
            counts["bad lines"] += 1


def _well_quoted(lines: list[str]) -> bool:
    """Whether a row of several lines is one by the strict rules too.

    Else a stray quote may have met the opening quote of a much later row.
    """
    try:
        return len(list(csv.reader(lines, skipinitialspace=True, strict=True))) == 1
    except csv.Error:
        return False


def _tolerant(reader: Iterator[list[str]], counts: Counter[str]) -> Iterator[list[str]]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            counts["bad lines"] += 1
