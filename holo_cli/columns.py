"""Widths of text in the columns of a terminal, and text that is wrapped as it arrives.

A Hangul syllable and most emoji take two columns, a combining mark none (Unicode Standard
Annex #11).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

TAB = 8  # columns between tab stops
_NO_WIDTH = {"Mn", "Me", "Cf"}  # combining marks, joiners


def shown(text: str) -> int:
    """Width of a text in terminal columns: wide letters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    # vowels and final consonants of Hangul in decomposed form join the consonant before them
    if "\u1160" <= character <= "\u11ff" or unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _breaks_anywhere(character: str) -> bool:
    """Whether a line may break beside this wide letter: Chinese and Japanese are written without
    spaces, Korean with them."""
    return not unicodedata.name(character, "").startswith("HANGUL")


class WordWrap:
    """Breaks lines at word edges while the text arrives in pieces: a word is held back until it is
    complete. Only a word longer than a line is broken. `columns` gives the width of a line, which
    may change meanwhile.

    >>> wrap = WordWrap(lambda: 8)
    >>> wrap.push("the fox ju") + wrap.push("mps away") + wrap.flush()
    'the fox\\njumps\\naway'
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._used = 0  # columns of the current line
        self._gap = ""  # spaces after the last word, dropped where a line breaks
        self._word = ""
        self._word_width = 0

    def push(self, text: str) -> str:
        """Adds a piece and returns what can be shown."""
        made: list[str] = []
        columns = max(1, self._columns())
        for character in text:
            if character == "\n":
                made.append(self._placed(columns) + "\n")
                self._used, self._gap = 0, ""
            elif character in " \t":
                made.append(self._placed(columns))
                stop = TAB - (self._used + len(self._gap)) % TAB
                self._gap += " " * stop if character == "\t" else " "
            else:
                width = _width(character)
                alone = width == 2 and _breaks_anywhere(character)
                if alone or self._word_width + width > columns:
                    made.append(self._placed(columns))
                self._word += character
                self._word_width += width
                if alone:
                    made.append(self._placed(columns))
        return "".join(made)

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        return self._placed(max(1, self._columns()))

    def _placed(self, columns: int) -> str:
        """The held word with the space before it, on this line or the next."""
        if not self._word:
            return ""
        before = self._gap
        self._used += len(self._gap)
        if self._used + self._word_width > columns and self._used:
            before, self._used = "\n", 0
        self._used += self._word_width
        placed, self._gap, self._word, self._word_width = before + self._word, "", "", 0
        return placed
