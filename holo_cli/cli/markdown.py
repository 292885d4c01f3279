"""Results as Markdown, for pages that people keep: what `--markdown` prints."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = re.compile(r"[-+x×~]?\d|[-–]?$")  # what a cell of a column that stands right begins with


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns of numbers stand to the right, a dash or nothing among them is no matter.

    >>> print(table(["model", "loss"], [["a|b", "1.5"]]))
    | model | loss |
    |---|---:|
    | a\\|b | 1.5 |
    """
    right = [
        any(cell for cell in cells) and all(NUMBER.match(cell) for cell in cells)
        for cells in zip(*rows, strict=True)
    ] or [False] * len(columns)
    marks = "".join("---:|" if is_number else "---|" for is_number in right)
    lines = [_line(columns), "|" + marks, *(_line(row) for row in rows)]
    return "\n".join(lines)


def points(sentences: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _line(cells: Sequence[str]) -> str:
    return "".join(("| ", " | ".join(cell.replace("|", "\\|") for cell in cells), " |"))
