"""Results as Markdown, as printed by `--markdown`."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = re.compile(r"[-+x×~]?\d|[-–]?$")  # start of a cell in a right-aligned column


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns of numbers (dashes and empty cells allowed) are right-aligned.

    >>> print(markdown_table(["model", "loss"], [["a|b", "1.5"]]))
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
    """A bulleted list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _line(cells: Sequence[str]) -> str:
    return "".join(("| ", " | ".join(cell.replace("|", "\\|") for cell in cells), " |"))
