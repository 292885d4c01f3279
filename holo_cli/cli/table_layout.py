"""Fits a table to the width of a terminal without breaking a number.

Headings and cells of words are wrapped at spaces first; if that is not enough, the columns are
split into several tables that all repeat the first column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from holo_cli.cli.markdown import NUMBER
from holo_cli.columns import shown

WIDTH = 80
NAMES = 20  # a first column wider than this is wrapped
_BREAKS = re.compile(r"(?<=[/-])(?=\w)| ")


@dataclass(frozen=True)
class TableBlock:
    """A table of columns with the given `widths`; cells and headings are lists of lines."""

    widths: list[int]
    heading: list[list[str]]
    rows: list[list[list[str]]]


def parts(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int = WIDTH,
    *,
    between: int = 2,
    edge: int = 0,
) -> list[TableBlock]:
    """The table as the fewest parts that fit `width`. `between` is the space between columns,
    `edge` that of the frame."""
    cells = [[row[i] for row in rows] for i in range(len(columns))]
    room = width - edge
    widest = [max([shown(columns[i]), *map(shown, column)]) for i, column in enumerate(cells)]
    if _total(widest, between) <= room:
        return [_part(columns, rows, range(len(columns)), widest)]
    least = [
        max(_longest_word(columns[i]), *(_least(cell, first=i == 0) for cell in column), 1)
        for i, column in enumerate(cells)
    ]
    made = []
    chosen = [0]
    for i in range(1, len(columns)):
        if len(chosen) > 1 and _total([least[j] for j in (*chosen, i)], between) > room:
            made.append(chosen)
            chosen = [0]
        chosen.append(i)
    made.append(chosen)
    return [
        _part(columns, rows, chosen, _widths(chosen, widest, least, room, between))
        for chosen in made
    ]


def lines(part: TableBlock, between: int = 2) -> list[str]:
    """A part as plain text."""
    found = []
    for cells in (part.heading, *part.rows):
        for i in range(max(len(cell) for cell in cells)):
            line = [
                padded(cell[i] if i < len(cell) else "", width)
                for cell, width in zip(cells, part.widths, strict=True)
            ]
            found.append((" " * between).join(line).rstrip())
    return found


def padded(text: str, width: int) -> str:
    """The text with spaces up to a width in terminal columns."""
    return text + " " * (width - shown(text))


def _total(widths: Sequence[int], between: int) -> int:
    return sum(widths) + between * (len(widths) - 1)


def _widths(
    chosen: Sequence[int], widest: list[int], least: list[int], room: int, between: int
) -> list[int]:
    """Column widths of a part: the minimum widths, then the remaining space for columns that would
    wrap, those that lack least first."""
    widths = {i: min(least[i], room) for i in chosen}
    left = room - _total(list(widths.values()), between)
    for i in sorted(chosen, key=lambda i: widest[i] - widths[i]):
        more = max(0, min(left, widest[i] - widths[i]))
        widths[i] += more
        left -= more
    return [widths[i] for i in chosen]


def _part(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    chosen: Sequence[int],
    widths: Sequence[int],
) -> TableBlock:
    pairs = list(zip(chosen, widths, strict=True))
    return TableBlock(
        list(widths),
        [_wrapped(columns[i], width) for i, width in pairs],
        [[_wrapped(row[i], width) for i, width in pairs] for row in rows],
    )


def _least(cell: str, *, first: bool) -> int:
    """The minimum width of a cell: numbers are not wrapped, words are."""
    if first:
        return min(shown(cell), NAMES)
    return shown(cell) if NUMBER.match(cell) else _longest_word(cell)


def _longest_word(text: str) -> int:
    return max((shown(word) for word in _BREAKS.split(text)), default=0)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; only a word longer than that is split."""
    if shown(text) <= width:
        return [text]
    made, line = [], ""
    position = 0
    for match in (*_BREAKS.finditer(text), None):
        end = match.start() if match else len(text)
        word, gap = text[position:end], text[position - 1 : position] == " " and position > 0
        position = match.end() if match else end
        joined = f"{line} {word}" if gap and line else line + word
        if line and shown(joined) > width:
            made.append(line)
            joined = word
        while shown(joined) > width:
            made.append(joined[:width])
            joined = joined[width:]
        line = joined
    return [*made, line]
