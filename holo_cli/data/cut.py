"""Text files into documents: at two empty lines, or into pieces where there is nothing to go by.

A novel, a log or a one-line file is a single text. It is cut into pieces of about 4 to 8 thousand
characters, at an empty line if there is one in that range, else at a line end, else at a space,
else hard; every piece is an exact stretch of the text, so that the pieces joined are the text.
Without this a split into train and validation by document would have only one to choose from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

SHORTEST, LONGEST = 4096, 8192  # characters of a piece
ENOUGH = 8  # separators from which on a file is believed to consist of documents


def count_separators(lines: Iterable[str], enough: int = ENOUGH) -> int:
    """How many pairs of empty lines there are; reads no further than `enough` of them."""
    found = empty = 0
    for line in lines:
        empty = empty + 1 if not line.strip() else 0
        found += empty == 2
        if found >= enough:
            break
    return found


def lines_of(blocks: Iterable[str]) -> Iterator[str]:
    """Text in blocks of any size as lines that keep their "\\n"; giant lines come in parts."""
    held = ""
    for block in blocks:
        held += block
        if held.endswith("\r"):  # may be half of a line end
            continue
        *lines, held = held.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            yield line + "\n"
        if len(held) > LONGEST:
            yield held
            held = ""
    *lines, held = held.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    yield from (line + "\n" for line in lines)
    if held:
        yield held


def documents(lines: Iterable[str], *, whole: bool) -> Iterator[str]:
    """The documents of a text given line by line, in order, none of them empty.

    Two or more empty lines always separate. With `whole` that is all; otherwise what lies between
    is also cut into pieces. Memory: one document (`whole`) or a few pieces.
    """
    current: list[str] = []
    size = empty = 0
    for line in lines:
        if line.strip():
            if empty >= 2:
                yield from _finished(current[:-empty], whole)
                current, size = [], 0
            empty = 0
        else:
            empty += 1
        current.append(line)
        size += len(line)
        if not whole and empty == 0 and size > 4 * LONGEST:
            text = "".join(current)
            while len(text) > 2 * LONGEST:
                at = cut_point(text)
                yield text[:at]
                text = text[at:]
            current, size = [text], len(text)
    yield from _finished(current[: len(current) - empty] if empty >= 2 else current, whole)


def _finished(lines: list[str], whole: bool) -> Iterator[str]:
    text = "".join(lines)
    if not text.strip():
        return
    if whole:
        yield text.strip("\n")
    else:
        yield from pieces(text)


def pieces(text: str) -> Iterator[str]:
    """Stretches of at most `LONGEST` characters whose concatenation is `text`."""
    while len(text) > LONGEST:
        at = cut_point(text)
        yield text[:at]
        text = text[at:]
    if text:
        yield text


def cut_point(text: str) -> int:
    """Where to cut a long text for the first time: after an empty line, a line, a word, or hard."""
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, SHORTEST, LONGEST)
        if at >= 0:
            return at + len(mark)
    return LONGEST


def cut_in_two(text: str, share: float) -> tuple[str, str]:
    """A single document as a train part and a validation part of about `share` at its end."""
    middle = min(max(round(len(text) * (1 - share)), 1), len(text) - 1)
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, middle // 2, middle + 1)
        if at >= 0 and 0 < at + len(mark) < len(text):
            return text[: at + len(mark)], text[at + len(mark) :]
    return text[:middle], text[middle:]
