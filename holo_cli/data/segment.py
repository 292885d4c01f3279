"""Text files into documents: at two empty lines, or into pieces where there is nothing to go by.

A novel, a log or a one-line file is a single text. It is cut into pieces of about 4 to 8 thousand
characters, at an empty line if there is one in that range, else at a line end, else at a space,
else hard; every piece is an exact stretch of the text, so that the pieces joined are the text.
Without this a split into train and validation by document would have only one to choose from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SHORTEST, LONGEST = 4096, 8192  # characters of a piece
ENOUGH = 8  # separators from which on a file is believed to consist of documents
_RUN = re.compile(r"\n[^\S\n]*\n[^\S\n]*\n")  # two empty lines; there may be more behind them
_INK = re.compile(r"\S")


def count_separators(blocks: Iterable[str], enough: int = ENOUGH) -> int:
    """How many runs of two or more empty lines there are; reads no further than `enough`."""
    found = 0
    for stretch in _stretches(blocks):
        found += stretch is None
        if found >= enough:
            break
    return found


def documents(blocks: Iterable[str], *, whole: bool) -> Iterator[str]:
    """The documents of a text given in blocks of any size, in order, none of them empty.

    Two or more empty lines always separate. With `whole` that is all; otherwise what lies between
    is also cut into pieces. Memory: one document (`whole`), or a block and a few pieces.
    """
    held: list[str] = []
    size = 0
    for stretch in _stretches(blocks):
        if stretch is None:
            yield from _finished("".join(held), whole)
            held, size = [], 0
            continue
        held.append(stretch)
        size += len(stretch)
        if not whole and size > 4 * LONGEST:
            text, at = "".join(held), 0
            while len(text) - at > 2 * LONGEST:
                end = split_point(text, at)
                yield text[at:end]
                at = end
            held, size = [text[at:]], len(text) - at
    yield from _finished("".join(held), whole)


def unix_lines(blocks: Iterable[str]) -> Iterator[str]:
    """The blocks with "\n" for every kind of line end, also for a "\r\n" that lies in two."""
    held = ""
    for block in blocks:
        text, held = held + block, ""
        if "\r" in text:
            if text.endswith("\r"):  # may be half of a line end
                text, held = text[:-1], "\r"
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield text
    if held:
        yield "\n"


def _stretches(blocks: Iterable[str]) -> Iterator[str | None]:
    """Stretches of the text in order, and None for each run of two or more empty lines.

    The lines of such a run are left out. White space at the end of a block waits for the next one,
    which decides whether it is a part of such a run. Looking for the runs in a block at a time
    takes a fifth of what looking at every line takes.
    """
    held, in_run = "\n", False
    start = 1  # a line end is thought before the text, so that a run can open it
    for block in unix_lines(blocks):
        text, at = held + block, 0
        while True:
            if in_run:
                ink = _INK.search(text, at)
                at = max(at, text.rfind("\n", at, ink.start() if ink else None) + 1)
                if ink is None:
                    break
                in_run = False
            run = _RUN.search(text, at)
            if run is None:
                break
            yield text[max(at, start) : run.start() + 1]
            yield None
            at, in_run, start = run.end(), True, 0
        end = at + len(text[at:].rstrip()) if not in_run else at
        if end > at:
            yield text[max(at, start) : end]
            start = 0
        held = text[end:]
    if in_run:
        return
    run = _RUN.search(held if held.endswith("\n") else held + "\n")
    yield held[start : run.start() + 1 if run else None]
    if run:
        yield None


def _finished(text: str, whole: bool) -> Iterator[str]:
    if not text or text.isspace():
        return
    if whole:
        yield text.strip("\n")
    else:
        yield from pieces(text)


def pieces(text: str) -> Iterator[str]:
    """Stretches of at most `LONGEST` characters whose concatenation is `text`."""
    at = 0
    while len(text) - at > LONGEST:
        end = split_point(text, at)
        yield text[at:end]
        at = end
    if at < len(text):
        yield text[at:]


def split_point(text: str, start: int = 0) -> int:
    """Where to cut a long text first: after an empty line, a line, a word, or hard.

    What lies before `start` does not count.
    """
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, start + SHORTEST, start + LONGEST)
        if at >= 0:
            return at + len(mark)
    return start + LONGEST


def split_in_two(text: str, share: float) -> tuple[str, str]:
    """A single document as a train part and a validation part of about `share` at its end."""
    middle = min(max(round(len(text) * (1 - share)), 1), len(text) - 1)
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, middle // 2, middle + 1)
        if at >= 0 and 0 < at + len(mark) < len(text):
            return text[: at + len(mark)], text[at + len(mark) :]
    return text[:middle], text[middle:]
