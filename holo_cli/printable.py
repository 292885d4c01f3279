"""The one place that makes foreign text safe for a terminal.

Text from a file, a model, a path or the command line may contain characters that a terminal obeys
instead of showing: escape sequences that clear the screen, set its title or write to the clipboard
(C0 and C1 controls), and marks that reverse the order of what follows (bidirectional embeddings and
isolates, Unicode Standard Annex #9). `printable` shows them as escapes (`\\x1b`, `\\u202e`) and
leaves every other character, so that no letter of any script and no emoji changes.

The command line writes to guarded streams (`guarded`), so no call site has to know. Text that must
reach a pipe unchanged, such as what a model generates, is written with `write_exact`; styling that
holo itself makes goes to the stream behind the guard (`unguarded`), after its texts have been made
printable.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# C0 without tab and newline, DEL and C1; line and paragraph separators; bidirectional embeddings,
# overrides and isolates; lone surrogates, which no encoding can write.
_OBEYED = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{_OBEYED}]")
_UNSAFE_IN_LINE = re.compile(f"[{_OBEYED}\t\n]")
_CONTINUED = "\n    | "
_NAMES = {"\n": "\\n", "\t": "\\t"}


def printable(text: str) -> str:
    """The text with every character that a terminal would obey as an escape; newline and tab stay,
    and a carriage return before a newline is dropped.

    >>> printable("red \\x1b[31m, \\u202edetrever, \\udcff")
    'red \\\\x1b[31m, \\\\u202edetrever, \\\\xff'
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """As `printable`, with newlines and tabs as escapes too: for names, values and cells of tables,
    which could otherwise imitate lines that holo prints.

    >>> one_line("name\\nError: forged")
    'name\\\\nError: forged'
    """
    if text.isprintable() and text.isascii():
        return text
    return _UNSAFE_IN_LINE.sub(_escaped, text)


def message(text: str) -> str:
    """A message of one or more lines; lines after the first are marked, so that a name with a
    newline in it cannot imitate another message."""
    return _CONTINUED.join(text.rstrip("\n").split("\n")) if "\n" in text else text


def json_text(text: str) -> str:
    """A JSON document with every character that a terminal would obey as a \\u escape: the same
    document, because JSON has such characters inside strings only."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a path or an argument that is not UTF-8
        code -= 0xDC00
    return _NAMES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


class PrintableStream:
    """A text stream that writes every text as `printable` gives it."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        """Writes the text and returns its length."""
        self.unguarded.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Standard output and standard error as guarded streams."""
    before = sys.stdout, sys.stderr
    if sys.stdout is not None:  # None: a process without one
        sys.stdout = PrintableStream(sys.stdout)
    if sys.stderr is not None:
        sys.stderr = PrintableStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unguarded(stream: TextIO) -> TextIO:
    """The stream behind the guard, for cursor movement and styling. Foreign text must be made
    printable before it is written there."""
    while (inner := getattr(stream, "unguarded", None)) is not None:
        stream = inner
    return stream


def write_exact(stream: TextIO, text: str) -> None:
    """Writes text that is a result in itself: printable on a terminal, unchanged in a file or a
    pipe."""
    if stream.isatty():
        stream.write(printable(text))
    else:
        unguarded(stream).write(text)
