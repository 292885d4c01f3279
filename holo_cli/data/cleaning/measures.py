"""The measures of a document for the rules, computed on demand.

Words are separated by white space, or single characters in scripts without spaces; empty lines do
not count. Runs of words are compared as 64-bit hashes.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.cleaning.words import Words, WordTable

BULLETS = tuple("•‣▪▸◦·*●○■□▶►-–—+")
SENTENCE_ENDS = tuple(".!?:;…。！？」』”’\"')]")
ELLIPSIS = "…"
_ELLIPSES = ("...", ELLIPSIS)
_TAGS = (
    "a abbr b blockquote body br button center code dd div dl dt em font footer form h1 h2 h3 h4 "
    "h5 h6 head header hr html i iframe img input label li link meta nav noscript ol option p pre "
    "script section select small span strong style sub sup table tbody td textarea th thead title "
    "tr u ul"
)
# each with a string that every match contains: searching for it first is much faster
_MARKUP = (
    ("<", re.compile(rf"</?(?:{'|'.join(_TAGS.split())})\b[^<>\n]{{0,300}}>", re.IGNORECASE)),
    ("&", re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6});")),
    ("[/", re.compile(r"\[/?(?:url|b|i|u|img|quote|size|color|font|code)(?:=[^\]\n]{0,200})?\]")),
    ("}}", re.compile(r"\{\{[^{}\n]{0,300}\}\}")),
    (";", re.compile(r"\{\s*(?:[\w-]+\s*:[^{};\n]{1,80};\s*)+\}")),
    ("var ", re.compile(r"var\s+[\w$]+\s*=[^;\n]{0,200};")),
    ("function", re.compile(r"function\s*[\w$]*\s*\([^()\n]{0,80}\)\s*\{[^{}\n]{0,200}\}?")),
)
# UTF-8 or cp949 decoded as Latin-1 or cp1252: three or more accented letters in a row (French has
# at most two, créée; Vietnamese uses others), or the pair that every ü and é becomes.
_OTHER_ENCODING = re.compile(
    "[\u00c0-\u00ff][\u00a0-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]{2,}"
    "|[\u00c2\u00c3][\u00a0-\u00bf]"
)
_FEW = 300  # words below which Python is faster than numpy
_LETTER, _ACCENTED, _RARE_HANGUL = 1, 2, 4  # bits of a character's class


class Measures:
    """Measures of a text. Shares are in [0, 1], and 0 for an empty denominator."""

    def __init__(self, text: str, table: WordTable, *, spaced: bool = True) -> None:
        self.text = text
        self._table = table
        self._spaced = spaced

    # -- words ------------------------------------------------------------------------------------

    @cached_property
    def word_count(self) -> int:
        return len(self._split)

    @cached_property
    def _split(self) -> list[str]:
        words = self.text.split()
        return words if self._spaced else list("".join(words))

    @cached_property
    def _words(self) -> Words:
        return self._table.look_up(self._split)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Start of each word in the concatenated words, and the end of the last."""
        ends = np.zeros(self.word_count + 1, dtype=np.int64)
        np.cumsum(self._words.lengths, out=ends[1:])
        return ends

    @property
    def _characters(self) -> int:
        return int(self._ends[-1])

    def mean_word(self) -> float:
        """Mean number of characters per word."""
        return _share(self._characters, self.word_count)

    def alphabetic(self) -> float:
        """The share of words with at least one letter."""
        return _share(self._words.with_letter, self.word_count)

    def stop_words(self) -> float:
        """The share of words that are stop words, or end in a particle, of the language."""
        return _share(self._words.stop, self.word_count)

    def symbols(self) -> float:
        """Hash signs and ellipses per word."""
        return _share(sum(map(self.text.count, ("#", *_ELLIPSES))), self.word_count)

    # -- lines ------------------------------------------------------------------------------------

    @cached_property
    def lines(self) -> list[str]:
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    def bullets(self) -> float:
        """The share of lines that begin with a bullet."""
        return _share(sum(line.startswith(BULLETS) for line in self.lines), len(self.lines))

    def ellipses(self) -> float:
        """The share of lines that end in an ellipsis."""
        return _share(sum(line.endswith(_ELLIPSES) for line in self.lines), len(self.lines))

    def line_punctuation(self) -> float:
        """The share of lines that end with sentence punctuation."""
        return _share(sum(line.endswith(SENTENCE_ENDS) for line in self.lines), len(self.lines))

    def short_lines(self) -> float:
        """The share of lines of at most 30 characters."""
        return _share(sum(len(line) <= 30 for line in self.lines), len(self.lines))

    def line_ends(self) -> float:
        """Line ends per word."""
        return _share(self.text.count("\n"), self.word_count)

    @cached_property
    def duplicate_lines(self) -> tuple[float, float]:
        """The share of repeated lines, and the share of characters in them."""
        unique = set(self.lines)
        if len(unique) == len(self.lines):
            return 0.0, 0.0
        characters = sum(map(len, self.lines))
        return (
            _share(len(self.lines) - len(unique), len(self.lines)),
            _share(characters - sum(map(len, unique)), characters),
        )

    # -- runs of words ----------------------------------------------------------------------------

    def _runs(self, n: int) -> NDArray[np.uint64]:
        """The hashes of all runs of n words."""
        rows = self._words.rows
        count = len(rows) - n + 1
        hashes = rows[:count].copy()
        for i in range(1, n):
            hashes *= np.uint64(0x9E3779B97F4A7C15)  # wraps around
            hashes += rows[i : count + i]
        return hashes

    def top_run(self, n: int, limit: float = 0.0) -> float:
        """The share of characters in the most frequent run of n words; 0 if none is repeated.

        Overlapping runs count in full, as in Gopher, so the share of a text that repeats one word
        exceeds 1. Returns 0 early if the share is certainly at most `limit`.
        """
        if self.word_count < n + 1:
            return 0.0
        if self._most_frequent_pair == 1:
            return 0.0  # no run is more frequent than its first two words
        lengths = self._ends[n:] - self._ends[:-n]
        if self._most_frequent_pair * int(lengths.max()) <= limit * self._characters:
            return 0.0
        runs = self._runs(n)
        order = np.sort(runs)
        starts = np.flatnonzero(np.concatenate(([True], order[1:] != order[:-1])))
        counts = np.diff(starts, append=len(order))
        most = int(counts.max())
        if most == 1:
            return 0.0
        top = np.isin(runs, order[starts[counts == most]])  # of several, the longest
        return most * int(lengths[top].max()) / self._characters

    @cached_property
    def _most_frequent_pair(self) -> int:
        if self.word_count < _FEW:
            return max(Counter(pairwise(self._split)).values())
        order = np.sort(self._runs(2))
        starts = np.flatnonzero(np.concatenate(([True], order[1:] != order[:-1])))
        return int(np.diff(starts, append=len(order)).max())

    def duplicate_runs(self, n: int, limit: float = 0.0) -> float:
        """The share of characters in repeated runs of n words, each character counted once.

        Returns 0 early if the share is certainly at most `limit`.
        """
        if self.word_count < n + 1:
            return 0.0
        if self.word_count < _FEW:
            starts = range(self.word_count - n + 1)
            if len({tuple(self._split[i : i + n]) for i in starts}) == len(starts):
                return 0.0
        runs = self._runs(n)
        order = np.sort(runs)
        repeats = int(np.count_nonzero(order[1:] == order[:-1]))
        longest = int((self._ends[n:] - self._ends[:-n]).max())
        if repeats * longest <= limit * self._characters:
            return 0.0
        again = np.ones(len(runs), dtype=bool)
        again[np.unique(runs, return_index=True)[1]] = False
        covered = np.zeros(self.word_count, dtype=bool)
        for i in range(n):
            covered[i : len(runs) + i] |= again
        return float(self._words.lengths[covered].sum()) / self._characters

    # -- characters -------------------------------------------------------------------------------

    def markup(self) -> float:
        """The share of characters in markup of web pages, forums and wikis."""
        found = 0
        for sign, pattern in _MARKUP:
            if sign in self.text:
                found += sum(match.end() - match.start() for match in pattern.finditer(self.text))
        return min(_share(found, len(self.text)), 1.0)

    def odd(self) -> float:
        """The share of letters that suggest a wrong encoding.

        These are long runs of accented letters, and Hangul syllables outside the 2,350 of KS X 1001
        (real text uses few of the other 8,822).
        """
        if self.text.isascii():
            return 0.0
        codes = np.frombuffer(self.text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
        counts = np.bincount(character_classes()[codes], minlength=8)
        rare = counts[_LETTER | _RARE_HANGUL]
        accented = counts[_LETTER | _ACCENTED]
        if not rare + accented:
            return 0.0
        odd = int(rare) + sum(map(len, _OTHER_ENCODING.findall(self.text) if accented else ()))
        return _share(odd, int(counts[1::2].sum()))


@cache
def character_classes() -> NDArray[np.uint8]:
    """The class bits of each UTF-16 code unit; surrogates have none."""
    letters = map(str.isalpha, map(chr, range(0x10000)))
    classes = np.fromiter(letters, dtype=np.uint8, count=0x10000) * np.uint8(_LETTER)
    classes[0xC0:0x100] |= _ACCENTED * (classes[0xC0:0x100] & _LETTER)
    common = [ord(syllable) for syllable in common_hangul()]
    rare = np.setdiff1d(np.arange(0xAC00, 0xD7A4), common)
    classes[rare] |= _RARE_HANGUL
    return classes


@cache
def common_hangul() -> frozenset[str]:
    """The 2,350 syllables of KS X 1001, rows 16 to 40 of EUC-KR."""
    pairs = (bytes((row, cell)) for row in range(0xB0, 0xC9) for cell in range(0xA1, 0xFF))
    return frozenset(pair.decode("euc-kr") for pair in pairs)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
