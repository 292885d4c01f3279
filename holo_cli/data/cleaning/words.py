"""What is known of a word, kept for the next time it comes.

Most words of a text are among some ten thousand. Looked up once each, their length, whether they
hold a letter and whether they are stop words lie in arrays, and everything the rules ask about
words is a gather and a sum. The row of a word also stands for it where runs of words are compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.cleaning.thresholds import Thresholds

_LIMIT = 100_000  # words kept, about 15 MB; more and the table is begun anew
_EDGES = " \t.,!?:;()[]{}'\"“”‘’「」『』<>~`…*_-"
_PARTS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Words:
    """The words of one text: for each its row in the table, its length, and what it is."""

    rows: NDArray[np.uint64]
    lengths: NDArray[np.int64]
    with_letter: int
    stop: int

    def __len__(self) -> int:
        return len(self.rows)


class _Rows(dict[str, int]):
    """Words and their rows; a word that is asked for and not there gets the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        self.new.append(word)
        row = self[word] = len(self)
        return row


class WordTable:
    """Rows for words under one language's stop words; not to be shared between threads."""

    def __init__(self, limits: Thresholds) -> None:
        self._stop, self._endings = limits.stop_words, limits.stop_endings
        self._begin()

    def _begin(self) -> None:
        self._rows = _Rows()
        self._lengths = np.zeros(0, dtype=np.int64)
        self._letter = np.zeros(0, dtype=bool)
        self._is_stop = np.zeros(0, dtype=bool)

    def look_up(self, words: Sequence[str]) -> Words:
        """All about some words. Rows of two calls must not be compared with each other."""
        if len(self._rows) > _LIMIT:
            self._begin()
        rows = np.fromiter(map(self._rows.__getitem__, words), dtype=np.int64, count=len(words))
        if self._rows.new:
            self._learn(self._rows.new)
            self._rows.new = []
        return Words(
            rows=rows.astype(np.uint64),
            lengths=self._lengths[rows],
            with_letter=int(np.count_nonzero(self._letter[rows])),
            stop=int(np.count_nonzero(self._is_stop[rows])),
        )

    def _learn(self, words: Sequence[str]) -> None:
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
        """Whether a word is a stop word, or ends in a particle; what stands around it apart.

        A contraction or an elision is a stop word if its first part is (it's, l'eau).
        """
        word = word.strip(_EDGES)
        if self._endings and word.endswith(self._endings):
            return True
        word = word.lower()
        if word in self._stop:
            return True
        parts = _PARTS.match(word)
        return parts is not None and parts[0] in self._stop
