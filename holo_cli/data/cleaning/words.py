"""A cache of the properties of words.

Most words of a text are among some ten thousand. Their length, whether they contain a letter and
whether they are stop words are computed once and stored in arrays, so that each measure over words
is a gather and a sum. The row of a word in these arrays also identifies it in runs of words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.cleaning.thresholds import Thresholds

_LIMIT = 100_000  # cached words, about 15 MB; a full cache is cleared
EDGES = " \t.,!?:;()[]{}'\"“”‘’「」『』<>~`…*_-"
_PARTS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Words:
    """The words of one text: their rows in the table, their lengths, and two counts."""

    rows: NDArray[np.uint64]
    lengths: NDArray[np.int64]
    with_letter: int
    stop: int

    def __len__(self) -> int:
        return len(self.rows)


class _Rows(dict[str, int]):
    """Rows by word; a missing word is added with the next row."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        self.new.append(word)
        row = self[word] = len(self)
        return row


class WordTable:
    """Properties of words for the stop words of one language. Not thread-safe."""

    def __init__(self, limits: Thresholds) -> None:
        self._stop, self._endings = limits.stop_words, limits.stop_endings
        self._clear()

    def _clear(self) -> None:
        self._rows = _Rows()
        self._lengths = np.zeros(0, dtype=np.int64)
        self._letter = np.zeros(0, dtype=bool)
        self._is_stop = np.zeros(0, dtype=bool)

    def look_up(self, words: Sequence[str]) -> Words:
        """The properties of `words`. Rows are only comparable within one call."""
        if len(self._rows) > _LIMIT:
            self._clear()
        rows = np.fromiter(map(self._rows.__getitem__, words), dtype=np.int64, count=len(words))
        if self._rows.new:
            self._extend(self._rows.new)
            self._rows.new = []
        return Words(
            rows=rows.astype(np.uint64),
            lengths=self._lengths[rows],
            with_letter=int(np.count_nonzero(self._letter[rows])),
            stop=int(np.count_nonzero(self._is_stop[rows])),
        )

    def _extend(self, words: Sequence[str]) -> None:
        first, count = len(self._rows) - len(words), len(self._rows)
        if count > len(self._lengths):
            room = max(count, 2 * len(self._lengths), 1024) - len(self._lengths)
            self._lengths = np.concatenate((self._lengths, np.zeros(room, dtype=np.int64)))
            self._letter = np.concatenate((self._letter, np.zeros(room, dtype=bool)))
            self._is_stop = np.concatenate((self._is_stop, np.zeros(room, dtype=bool)))
        self._lengths[first:count] = [len(word) for word in words]
        self._letter[first:count] = [w.isalpha() or any(map(str.isalpha, w)) for w in words]
        self._is_stop[first:count] = [self.is_stop(word) for word in words]

    def is_stop(self, word: str) -> bool:
        """Whether a word, without punctuation, is a stop word or ends in a particle.

        A contraction or an elision is a stop word if its first part is (it's, l'eau).
        """
        word = word.strip(EDGES)
        if self._endings and word.endswith(self._endings):
            return True
        word = word.lower()
        if word in self._stop:
            return True
        parts = _PARTS.match(word)
        return parts is not None and parts[0] in self._stop
