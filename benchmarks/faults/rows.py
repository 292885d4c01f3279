"""The rows of a run of the bench: JSON Lines, appended case by case, so that a stopped run resumes.

The first line says which code was tested with which seed. Rows of other code or another seed are
never mixed with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holo_cli.parsing import parse_json

FORMAT = 1
Row = dict[str, Any]


class OtherRunError(RuntimeError):
    """The file holds rows of another run."""


class CaseRows:
    """The rows of one file: those that are there, and new ones appended. `case` is their key."""

    def __init__(self, path: Path, about: Row) -> None:
        """`about`: what must be equal for rows to belong together. Raises OtherRunError."""
        self.path = path
        self.about = {"faults": FORMAT, **about}
        self._rows: dict[str, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        if not lines or not lines[0]:
            path.write_text(json.dumps(self.about) + "\n", encoding="utf-8")
            return
        if parse_json(lines[0]) != self.about:
            raise OtherRunError(
                f"{path} holds rows of {lines[0].decode()}, not of {json.dumps(self.about)}."
            )
        for line in lines[1:-1]:  # the last one is empty, or was cut off
            row = parse_json(line)
            self._rows[row["case"]] = row
        if lines[-1]:
            path.write_bytes(b"\n".join(lines[:-1]) + b"\n")

    @classmethod
    def read(cls, path: Path) -> CaseRows:
        """The rows of a file, whatever run they are of. Raises OSError, ValueError."""
        with path.open(encoding="utf-8") as file:
            head = parse_json(file.readline())
        head.pop("faults")
        return cls(path, head)

    def __contains__(self, case: str) -> bool:
        return case in self._rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Append a row."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._rows[row["case"]] = row
