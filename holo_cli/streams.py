"""The three streams of the process: a command works the same whoever reads them, or nobody.

- A stream that is closed at the start (`>&-`, a daemon, pythonw) is the null device. Its descriptor
  is taken too, so that no file opened later lands on 0, 1 or 2 and receives what a library prints.
- A reader that goes away (`| head`, a closed terminal) is no error: the rest of the stream goes
  nowhere, and `reader_gone` tells a command that it may stop early.
- A standard output that cannot be written (a full disk) is an error at the end of the command, when
  everything else is done and saved. The same of standard error is none: it carries messages only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

# Errors of a write to a closed reader: a pipe (EINVAL on Windows), a closed terminal, a
# closed socket, a descriptor that somebody closed.
_GONE = {
    errno.EPIPE, errno.EINVAL, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET,
    errno.ENOTCONN, errno.ESHUTDOWN,
}  # fmt: skip

_NOWHERE = Path(os.devnull)


def open_closed() -> None:
    """The null device in place of each standard stream that is closed."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    with contextlib.suppress(OSError):
        while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass  # it took the place of a closed one
        os.close(free)
    if sys.stdin is None:
        sys.stdin = _NOWHERE.open(encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = _NOWHERE.open("w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = _NOWHERE.open("w", encoding="utf-8")


class LastingStream:
    """A text stream for writing that outlives its reader.

    `reader_gone`: nothing that is written arrives any more. `failure`: why, if that is an error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.reader_gone = False
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Writes the text, unless there is no reader; its length."""
        if not self.reader_gone:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._end(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self.reader_gone:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._end(error)

    def _end(self, error: OSError | ValueError) -> None:
        if isinstance(error, ValueError):
            if not self._stream.closed:
                raise error
        elif error.errno not in _GONE:
            self.failure = error
        self.reader_gone = True
        # what is still in the buffer is written once more when Python ends
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting() -> Iterator[LastingStream]:
    """Standard output and standard error as lasting streams; gives the first of them."""
    before = sys.stdout, sys.stderr
    for stream in before:
        _wait_for_room(stream)
    out = LastingStream(sys.stdout)
    sys.stdout, sys.stderr = out, LastingStream(sys.stderr)
    try:
        yield out
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def reader_gone(stream: object) -> bool:
    """Whether what is written to a standard stream arrives nowhere any more."""
    return bool(getattr(stream, "reader_gone", False))


def _wait_for_room(stream: TextIO) -> None:
    """Writes wait where a pipe is full; a parent process may have set it not to."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError, ValueError):
        if not os.get_blocking(stream.fileno()):
            os.set_blocking(stream.fileno(), True)
