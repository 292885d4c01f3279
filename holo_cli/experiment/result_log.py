"""The raw rows of a bench: one JSON object a line, appended as runs finish, never rewritten.

The first line names the bench and the version of the format. When the file is read, later rows of a
key replace earlier ones, so a repeated run leaves its first result on record. A last line that was
cut off by a crash is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.row_schema import fault_of
from holo_cli.parsing import ParseError, parse_object, read_bytes

FORMAT = 1
Row = dict[str, Any]


def key_of(settings: Mapping[str, Any]) -> str:
    """A short hash: equal settings have equal keys, on any machine."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


class ResultLog:
    """The rows of one file, and new ones added to it. `kind` is the bench that writes them."""

    def __init__(self, path: Path, kind: str) -> None:
        """Reads the file, if there is one. Raises DataError for another version or bench."""
        self.path, self.kind = path, kind
        self._rows: dict[str, Row] = {}
        for row in self._read():
            if row.get("forgotten"):
                self._rows.pop(row["key"], None)
            else:
                self._rows[row["key"]] = row

    def get(self, key: str) -> Row | None:
        """The newest row of a key."""
        return self._rows.get(key)

    def __iter__(self) -> Iterator[Row]:
        """The newest row of every key, oldest key first."""
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def machine(self) -> Mapping[str, Any]:
        """What the newest rows were measured on; empty without rows."""
        return next((row["machine"] for row in reversed(list(self))), {})

    def forget(self, key: str) -> None:
        """Act as if a key had no row; its line stays in the file until a newer one replaces it."""
        self._rows.pop(key, None)

    def tombstone(self, key: str) -> None:
        """Forget a key permanently: a line marks it as forgotten, its earlier rows stay above."""
        self._append({"key": key, "forgotten": True})
        self.forget(key)

    def add(self, row: Row) -> None:
        """Append a row and flush it to the disk."""
        assert "key" in row
        self._append(row)
        self._rows[row["key"]] = row

    def _append(self, row: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            if new:
                file.write(json.dumps({"bench": self.kind, "format": FORMAT}) + "\n")
            elif not self._ends_with_newline():
                file.write("\n")
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _content(self) -> bytes:
        try:
            return read_bytes(self.path)
        except ParseError as error:
            raise DataError(
                f"{self.path} is not a file of bench rows: it is {error}.",
                next_step="Name another page with --out.",
            ) from error

    def _read(self) -> list[Row]:
        if not self.path.exists():
            return []
        # as bytes: a cut can fall inside a letter, and only "\n" ends a row, not all that Unicode
        # counts as a line end
        lines = self._content().split(b"\n")
        if not lines[0].strip():
            return []
        head = _parsed(lines[0])
        if head is None or "bench" not in head:
            raise DataError(
                f"{self.path} is not a file of bench rows.",
                next_step="Name another page with --out.",
            )
        if head["bench"] != self.kind:
            raise DataError(
                f"{self.path} holds rows of `holo bench {head['bench']}`, not of {self.kind}.",
                next_step="Name another page with --out.",
            )
        if head.get("format") != FORMAT:
            raise DataError(
                f"{self.path} has rows in format {head.get('format')}; this holo reads and writes "
                f"format {FORMAT}.",
                next_step="Name another page with --out, or use the holo that wrote it.",
            )
        # a line that is not JSON was cut off by a crash: its run counts as not done
        parsed = enumerate(map(_parsed, lines[1:]), start=2)
        rows = [(number, row) for number, row in parsed if row is not None and "key" in row]
        for number, row in rows:
            if what := fault_of(row, self.kind):
                raise DataError(
                    f"Line {number} of {self.path} is damaged: {what}.",
                    next_step="Delete that line; its run then counts as not done.",
                )
        return [row for _, row in rows]


def _parsed(line: bytes) -> Row | None:
    try:
        return parse_object(line)
    except ParseError:
        return None


def rows_path(page: Path) -> Path:
    """The file of a page's rows, beside it and under the same name. Raises UsageError for a page
    that has the name of its own rows."""
    return beside(page, ".jsonl")


def beside(page: Path, suffix: str) -> Path:
    """A page's path with another suffix; "run.v1" keeps its ".v1", only .html is removed.

    Raises UsageError where that is the page itself, or where the page is a folder.
    """
    if page.is_dir():
        raise UsageError(
            f"The page would be the folder '{page}'.",
            next_step=f"Name a file in it, for example {page / 'page.html'}.",
        )
    if page.suffix.lower() in (".jsonl", ".work"):
        raise UsageError(
            f"--out {page} names the page, and {page.suffix} is for files beside it.",
            next_step=f"For example: --out {page.with_suffix('.html')}",
        )
    if page.suffix.lower() in (".html", ".htm"):
        return page.with_suffix(suffix)
    return page.with_name(page.name + suffix)


# -- which loss is for what: one chooses among runs, the other is reported ------------------------
# Rows from before the validation part was split have one loss over all of it.


def tune_loss(row: Row) -> float:
    """Nats per token on the text that learning rates and settings are chosen by."""
    return float(row["tune_loss"] if "tune_loss" in row else row["val_loss"])


def test_loss(row: Row) -> float:
    """Nats per token on the text that is reported and chose nothing."""
    return float(row["test_loss"] if "test_loss" in row else row["val_loss"])


def test_bpb(row: Row) -> float:
    """Bits per byte of the reported text."""
    return float(row["test_bpb"] if "test_bpb" in row else row["bpb"])


def is_split(row: Row) -> bool:
    """Whether the row's losses are of two texts."""
    return "test_loss" in row
