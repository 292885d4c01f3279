"""The terminal during an answer: words are kept whole, and what is typed meanwhile is not shown."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from holo_cli.columns import WordWrap
from holo_cli.printable import printable, write_exact
from holo_cli.streams import reader_gone


class ReaderGone(Exception):
    """Whatever read standard output has ended, as after `| head`."""


class AnswerWriter:
    """Writes the pieces of an answer to standard output: on a terminal printable and wrapped at
    word edges, elsewhere unchanged. Raises ReaderGone if nothing reads it any more."""

    def __init__(self) -> None:
        self._wrap = WordWrap(_line_width) if sys.stdout.isatty() else None

    def write(self, piece: str) -> None:
        """Shows a piece as far as its words are complete."""
        self._out(piece if self._wrap is None else self._wrap.push(printable(piece)))

    def close(self) -> None:
        """Shows what was held back, and ends the line."""
        self._out(("" if self._wrap is None else self._wrap.flush()) + "\n")

    def _out(self, text: str) -> None:
        write_exact(sys.stdout, text)
        sys.stdout.flush()
        if reader_gone(sys.stdout):
            raise ReaderGone


def _line_width() -> int:
    # the last column stays free: some terminals break the line there by themselves
    return shutil.get_terminal_size().columns - 1


@contextmanager
def typing_hidden(stdin: TextIO) -> Iterator[None]:
    """Keys typed inside are not shown, and wait for the next prompt; Ctrl-C works as before."""
    try:
        import termios
    except ImportError:  # Windows shows keys only while a line is read
        yield
        return
    if not stdin.isatty():
        yield
        return
    descriptor = stdin.fileno()
    before = termios.tcgetattr(descriptor)
    hidden = list(before)
    hidden[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, hidden)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
