"""What Typer and the commands write to stderr, in the user's language (help pages: cli/help.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from holo_cli.translation import language, translate


class TranslatedStream:
    """A text stream that translates what is written; nothing is held back to complete a line."""

    def __init__(self, stream: TextIO) -> None:
        self.untranslated = stream

    def write(self, text: str) -> int:
        # a carriage return moves a progress bar
        self.untranslated.write(text if "\r" in text else translate(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.untranslated, name)


@contextmanager
def translated() -> Iterator[None]:
    """Standard error in the user's language."""
    if language() == "en":
        yield
        return
    stderr = sys.stderr
    sys.stderr = TranslatedStream(stderr)
    try:
        yield
    finally:
        sys.stderr = stderr
