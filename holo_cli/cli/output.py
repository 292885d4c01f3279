"""The output sink of the command line: results go to stdout, everything else to stderr.

With `--json` stdout contains one JSON document (for training, one object per line) and nothing
else. Frames, colour and progress bars (progress.py) appear only on a terminal that supports them,
colour never under NO_COLOR; elsewhere the same facts are plain lines. Both streams are UTF-8 in
every locale, guarded (holo_cli/printable.py: no text from a file or a model is obeyed by a
terminal), and outlive their readers (holo_cli/streams.py: `| head` is no error)."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from holo_cli.cli import markdown, table_layout
from holo_cli.columns import shown
from holo_cli.printable import (
    json_text,
    message,
    one_line,
    printable,
    unguarded,
    write_exact,
)
from holo_cli.streams import reader_gone
from holo_cli.translation import translate

DIM, UNDIM = "\x1b[2m", "\x1b[22m"


def use_utf8() -> None:
    """Makes stdin, stdout and stderr UTF-8; characters that cannot be encoded become "?"."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent on the streams of tests
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Output:
    """The sink of one command. `verbosity`: True for -v, False for -q, None for neither.

    Under torchrun only rank 0 writes.
    """

    def __init__(
        self, *, json: bool = False, markdown: bool = False, verbosity: bool | None = None
    ) -> None:
        self.json, self.markdown = json, markdown
        self.quiet, self.verbose = verbosity is False, verbosity is True
        self.began = time.monotonic()
        self.silent = os.environ.get("RANK", "0") != "0"
        logger = logging.getLogger("holo_cli")
        logger.setLevel(
            {True: logging.INFO, None: logging.WARNING, False: logging.ERROR}[verbosity]
        )
        logger.handlers = [_Lines()]

    @property
    def reader_gone(self) -> bool:
        """Whether nothing reads the results any more: a command may stop early."""
        return reader_gone(sys.stdout)

    def for_people(self) -> Output:
        """A copy without --json, for the steps of a command that prints one document at its end."""
        twin = copy.copy(self)
        twin.json = False
        return twin

    # -- results, on stdout -----------------------------------------------------------------------

    def text(self, text: str, end: str = "\n") -> None:
        """A part of the result; nothing with --json."""
        if not self.json:
            self._write(text + end)

    def verbatim(self, text: str, end: str = "\n") -> None:
        """A text that is a result in itself, such as what a model generates: printable on a
        terminal, unchanged elsewhere; nothing with --json."""
        if not self.json:
            self._write(text + end, write_exact)

    def before(self, text: str) -> None:
        """What a result continues, dimmed, without a line end; on a terminal only, and not with
        -q."""
        if text and not (self.json or self.quiet) and is_terminal(sys.stdout):
            plain = bool(os.environ.get("NO_COLOR"))
            shown_text = printable(text)
            self._write(
                shown_text if plain else f"{DIM}{shown_text}{UNDIM}",
                lambda stream, styled: unguarded(stream).write(styled),
            )

    def document(self, data: Mapping[str, Any]) -> None:
        """The command's one JSON document; nothing without --json."""
        if self.json:
            self._write(dumps(data, indent=2) + "\n")

    def event(self, data: Mapping[str, Any]) -> None:
        """One JSON object on one line; nothing without --json."""
        if self.json:
            self._write(dumps(data) + "\n")

    def facts(self, rows: Iterable[tuple[str, object]], literal: bool = False) -> None:
        """Names and values in two columns, each on one line.

        With `literal` they are keys and values as a user types them: never translated.
        """
        word = one_line if literal else _translated
        rows = [(word(name), word(str(value))) for name, value in rows]
        width = max((shown(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.text(f"{table_layout.padded(name, width)}  {value}".rstrip())

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        width: int | None = None,
        literal: bool = False,
    ) -> None:
        """A framed table on a terminal, otherwise columns aligned by spaces, or Markdown.

        With `width` the table is fitted to a width: words are wrapped and, if that is not enough,
        the columns are split into several tables. Numbers are never broken. With `literal` the
        cells are keys and values as a user types them: only the headings are translated.
        """
        if self.json:
            return
        columns = [one_line(column) for column in columns]
        body = [[one_line(str(cell)) for cell in row] for row in rows]
        if self.markdown:
            self.text("\n" + markdown.markdown_table(columns, body) + "\n")
            return
        columns = [translate(column) for column in columns]
        if not literal:
            body = [[translate(cell) for cell in row] for row in body]
        if is_terminal(sys.stdout):
            self._framed(columns, body, width)
            return
        if width is not None:
            made = table_layout.parts(columns, body, width)
            self.text("\n\n".join("\n".join(table_layout.lines(part)) for part in made))
            return
        cells = [columns, *body]
        widths = [max(shown(row[i]) for row in cells) for i in range(len(columns))]
        for row in cells:
            pairs = zip(row, widths, strict=True)
            self.text("  ".join(table_layout.padded(*pair) for pair in pairs).rstrip())

    def heading(self, title: str, note: str = "") -> None:
        """The title of the table below."""
        title, note = one_line(title), one_line(note)
        if self.markdown:
            self.text(f"### {title}\n\n{note}".rstrip())
        else:
            title, note = translate(title), translate(note)
            self.text(f"{title} ({note})" if note else title)

    def sentences(self, sentences: Sequence[str]) -> None:
        """Findings, one per line."""
        if sentences:
            if self.markdown:
                self.text(markdown.points(sentences))
            else:
                self.text("\n".join(map(translate, sentences)))

    def _framed(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None
    ) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        bold = "" if os.environ.get("NO_COLOR") else "bold"
        console = Console(file=unguarded(sys.stdout))  # for its styling; the cells are printable
        made = [(list(columns), [list(row) for row in rows])]
        if width is not None:
            made = [
                (
                    ["\n".join(cell) for cell in part.heading],
                    [["\n".join(cell) for cell in row] for row in part.rows],
                )
                for part in table_layout.parts(columns, rows, console.width, between=3, edge=4)
            ]
        for heading, body in made:
            table = Table(*heading, box=box.SIMPLE_HEAD, header_style=bold)
            for row in body:
                table.add_row(*map(Text, row))  # Text: brackets are not markup
            console.print(table)

    def _write(self, text: str, write: Callable[[TextIO, str], object] | None = None) -> None:
        if self.silent or self.reader_gone:
            return
        if write is None:
            sys.stdout.write(text)
        else:
            write(sys.stdout, text)
        sys.stdout.flush()

    # -- everything else, on stderr ---------------------------------------------------------------

    def note(self, text: str, literal: bool = False) -> None:
        """A line about progress or context; nothing with -q. With `literal` it is not translated,
        as what a model generated."""
        if not (self.quiet or self.silent):
            stream = getattr(sys.stderr, "untranslated", sys.stderr) if literal else sys.stderr
            print(message(text), file=stream, flush=True)

    def warn(self, text: str) -> None:
        """A warning, also shown with -q."""
        if not self.silent:
            print(message(f"Warning: {text}"), file=sys.stderr, flush=True)

    def end(self, wrote: str, then: str) -> None:
        """The last lines of a command: what was written, its time (with -v), and the next
        command."""
        if wrote:
            self.note(wrote)
        if self.verbose:
            self.note(f"Took {duration(time.monotonic() - self.began)}.")
        if then:
            self.note(f"Next: {then}")


class _Lines(logging.Handler):
    """Log records of the library, as lines on the current stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _translated(text: str) -> str:
    return translate(one_line(text))


def dumps(data: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON with letters unescaped and control characters escaped; NaN and infinity become null."""
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, indent=indent)
    return json_text(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.as_posix() if isinstance(value, Path) else value


def count(n: float) -> str:
    """A number with a unit prefix: 950, 12.3k, 4.56M, 7.8B."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= 0.9995 * size:  # rounds up to the unit at three digits
            return f"{n / size:.3g}{unit}"
    return f"{n:.0f}" if float(n).is_integer() else f"{n:.3g}"


def size(nbytes: float) -> str:
    """A number of bytes with a unit, in powers of 1,000: 512 bytes, 3.4 MB."""
    for step, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= step:
            return f"{nbytes / step:.3g} {unit}"
    return f"{nbytes:.0f} bytes"


def duration(seconds: float) -> str:
    """A duration with units: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
