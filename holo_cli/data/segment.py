"""Splits a text file into documents: at two or more empty lines, or into pieces of similar length.

A novel, a log or a one-line file is a single text. It is split into pieces of 4,096 to 8,192
characters: at an empty line if there is one in that range, else at a line end, else at a space,
else at 8,192 characters. The pieces concatenated are the text. Without this, the train/validation
split by document would have only one document to choose from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SHORTEST, LONGEST = 4096, 8192  # characters of a piece
MOST = 1 << 28  # characters of a document that is held in memory
BLANKS = 1 << 20  # characters of white space that are held
ENOUGH = 8  # separators from which on a file is treated as a list of documents
_RUN = re.compile(r"\n[^\S\n]*\n[^\S\n]*\n")  # two empty lines, perhaps followed by more
_VISIBLE = re.compile(r"\S")


def count_separators(blocks: Iterable[str], enough: int = ENOUGH) -> int:
    """Count the runs of two or more empty lines; stops reading at `enough` of them."""
    found = 0
    for stretch in _stretches(blocks):
        found += stretch is None
        if found >= enough:
            break
    return found


def documents(blocks: Iterable[str], *, whole: bool) -> Iterator[str]:
    """The documents of a text given in blocks of any size, in order, none of them empty.

    Two or more empty lines always separate documents. Without `whole`, the text between them is
    also split into pieces; so is a document of more than `MOST` characters. Memory: one document
    (`whole`), or a block and a few pieces.
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
        if size > (MOST if whole else 4 * LONGEST):
            text, at = "".join(held), 0
            while len(text) - at > 2 * LONGEST:
                end = split_point(text, at)
                yield text[at:end]
                at = end
            held, size = [text[at:]], len(text) - at
    yield from _finished("".join(held), whole)


def unix_lines(blocks: Iterable[str]) -> Iterator[str]:
    """The blocks with "\n" for every kind of line end, also for a "\r\n" across two blocks."""
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

    The lines of such a run are left out. White space at the end of a block is held until the next
    block shows whether it belongs to a run. Searching a block at a time is five times faster than
    iterating over lines.
    """
    held, in_run = "\n", False
    start = 1  # skips the line end put before the text, which lets a run begin the text
    for block in unix_lines(blocks):
        text, at = held + block, 0
        while True:
            if in_run:
                visible = _VISIBLE.search(text, at)
                at = max(at, text.rfind("\n", at, visible.start() if visible else None) + 1)
                if visible is None:
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
        if len(held) > BLANKS:
            yield held[start:]
            held, start = "", 0
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
    """The end of the first piece of a long text from `start` on: see the module docstring."""
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, start + SHORTEST, start + LONGEST)
        if at >= 0:
            return at + len(mark)
    return start + LONGEST


def split_in_two(text: str, share: float) -> tuple[str, str]:
    """A text as a training part and a validation part, about `share` of it, at its end."""
    middle = min(max(round(len(text) * (1 - share)), 1), len(text) - 1)
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, middle // 2, middle + 1)
        if at >= 0 and 0 < at + len(mark) < len(text):
            return text[: at + len(mark)], text[at + len(mark) :]
    return text[:middle], text[middle:]
