"""A fast screen in front of the rules: which documents certainly break none of them.

Nearly every document of a decent text breaks no rule, and to know that takes no exact measures,
only bounds on them. `RuleScreen.passes` computes them for many documents at once, as arrays of the
characters and words of a block, with no Python object per word; `rules.broken` measures the
documents that do not pass. A wrong bound could let a document through that a rule drops, so each
bound here errs on the other side:

- shares of words and lines are the exact ones, except stop words, which are undercounted;
- repeated runs of words are overcounted: equal runs have equal hashes, and each bound adds up all
  repeats as if they did not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.cleaning.measures import (
    BULLETS,
    ELLIPSIS,
    SENTENCE_ENDS,
    Measures,
    character_classes,
)
from holo_cli.data.cleaning.thresholds import Thresholds
from holo_cli.data.cleaning.words import EDGES, WordTable
from holo_cli.data.normalize import UNDECODABLE

LONGEST = 100_000  # characters of a document that is screened; arrays take some 40 bytes of each
BLOCK_CHARACTERS = 1 << 17  # screened at once: the arrays then stay in the processor's cache
BLOCK_DOCUMENTS = 1024
_LENGTH_BITS, _HASH_BITS = 17, 37  # of a key, under ten bits of the document's number
_LENGTH_MASK = np.uint64((1 << _LENGTH_BITS) - 1)
_DOCUMENT_SHIFT = np.uint64(_LENGTH_BITS + _HASH_BITS)
# bits of a character: the first three are those of `character_classes`
_LETTER, _ACCENTED, _RARE, _SPACE, _BULLET, _END, _EDGE, _PARTICLE = (1 << i for i in range(8))
_LAST_CODE = 0xFFFF  # stands for all characters beyond it: none of them has a bit that matters
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_MULTIPLY, _FINISH = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0xD6E8FEB86659FD93)

_Numbers = NDArray[np.int64]
_Flags = NDArray[np.bool_]
_Hashes = NDArray[np.uint64]


class RuleScreen:
    """The screen for the limits of one language."""

    def __init__(self, limits: Thresholds, table: WordTable) -> None:
        self._limits, self._table = limits, table
        self._bits = _bits(tuple(sorted(end for end in limits.stop_endings if len(end) == 1)))
        forms = {form for word in limits.stop_words for form in (word, word.capitalize())}
        short = [form for form in forms if len(form) <= 4 and form.lower() in limits.stop_words]
        self._stop = np.unique(np.array([_packed(form) for form in short], dtype=np.uint64))

    def passes(self, texts: Sequence[str]) -> list[bool]:
        """For each normalized text whether it certainly breaks no rule."""
        passed = [False] * len(texts)
        if not self._limits.spaced:  # words are characters: the exact measures are needed
            return passed
        for numbers in _blocks(texts):
            found = self._block([texts[number] for number in numbers])
            for number, good in zip(numbers, found, strict=True):
                passed[number] = good
        return passed

    def _block(self, texts: Sequence[str]) -> list[bool]:
        limits, block = self._limits, _Block(texts, self._bits)
        words = block.words
        with np.errstate(divide="ignore", invalid="ignore"):  # texts without words or lines
            good = (words >= max(limits.min_words, 1)) & (words <= limits.max_words)
            good &= ~((words >= limits.judged_words) & ~self._words_pass(block))
            judged = (words >= limits.judged_words) & (block.lines >= limits.judged_lines)
            good &= ~(judged & ~self._lines_pass(block))
        odd = block.with_any(_RARE | _ACCENTED)
        return [
            bool(good[i]) and self._text_passes(text, int(words[i]), suspect=bool(odd[i]))
            for i, text in enumerate(texts)
        ]

    def _text_passes(self, text: str, words: int, *, suspect: bool) -> bool:
        """The rules whose measures are quick to take exactly."""
        limits, measures = self._limits, Measures(text, self._table)
        if UNDECODABLE in text or measures.markup() > limits.max_markup:
            return False
        if suspect and measures.odd() > limits.max_odd:
            return False
        if words < limits.judged_words:
            return True
        if "orem ipsum" in text:
            return False
        symbols = text.count("#") + text.count("...") + text.count(ELLIPSIS)
        return symbols / words <= limits.max_symbols

    def _words_pass(self, block: _Block) -> _Flags:
        limits, words, characters = self._limits, block.words, block.characters
        mean = characters / words
        good: _Flags = (mean >= limits.min_mean_word) & (mean <= limits.max_mean_word)
        good &= block.of_words(block.with_letter) / words >= limits.min_alphabetic
        good &= words >= limits.judged_words
        if limits.min_stop_words > 0:
            stop = block.ends_in(_PARTICLE, _EDGE)
            if not (block.of_words(stop)[good] / words[good] >= limits.min_stop_words).all():
                stop |= block.among(self._stop)
            good &= block.of_words(stop) / words >= limits.min_stop_words
        tops = limits.max_top_2_grams, limits.max_top_3_grams, limits.max_top_4_grams
        if min(tops) < 1:
            pairs = block.runs(2, good)
            good &= (tops[0] >= 1) | (pairs.top / characters <= tops[0])
            for n, limit in enumerate(tops[1:], start=3):
                # no run is more frequent than its first two words
                open_ = good & (pairs.most * block.longest_run(n) / characters > limit)
                good &= ~open_ | (block.runs(n, open_).top / characters <= limit)
        most = min(limits.max_duplicate_5_grams, limits.max_duplicate_10_grams)
        if most < 1:
            good &= block.runs(5, good).repeated / characters <= most
        return good

    def _lines_pass(self, block: _Block) -> _Flags:
        limits, lines = self._limits, block.lines
        lines_of = block.of_lines
        first, last = block.line_edges
        repeats = block.repeated_lines
        good: _Flags = lines_of(first & _BULLET != 0) / lines <= limits.max_bullets
        good &= lines_of(block.in_ellipsis) / lines <= limits.max_ellipses
        good &= lines_of(last & _END != 0) / lines >= limits.min_line_punctuation
        good &= lines_of(block.line_lengths <= 30) / lines <= limits.max_short_lines
        good &= block.line_ends / block.words <= limits.max_line_ends
        good &= repeats.count / lines <= limits.max_duplicate_lines
        characters = lines_of(block.line_lengths)
        good &= repeats.repeated / characters <= limits.max_duplicate_line_characters
        return good


@dataclass(frozen=True)
class _Repeats:
    """Of each document, (documents,) int64: repeats of things after their first occurrence.

    `count`: how many; `repeated`: their characters; `most`: how often one thing occurs, 0 if none
    is repeated; `top`: the most characters that one thing takes with all its occurrences.
    """

    count: _Numbers
    repeated: _Numbers
    most: _Numbers
    top: _Numbers


class _Block:
    """Documents as arrays over characters, words and lines; each document ends in a line end."""

    def __init__(self, texts: Sequence[str], bits: NDArray[np.uint8]) -> None:
        joined = "\n".join(["", *texts, ""])
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        if not joined.isascii() and int(codes.max()) > _LAST_CODE:
            codes = np.minimum(codes, np.uint32(_LAST_CODE))
        self._codes, self.bits = codes, bits[codes]
        self._starts = np.cumsum([1, *(len(text) + 1 for text in texts)])
        space = self.bits & _SPACE
        edges = np.flatnonzero(space[1:] != space[:-1]) + 1
        self._first, self._after = edges[0::2], edges[1::2]  # of each word
        self._word_at = np.searchsorted(self._first, self._starts)
        self.words = np.diff(self._word_at)
        self._lengths_before = np.zeros(len(self._first) + 1, dtype=np.int64)
        np.cumsum(self._after - self._first, out=self._lengths_before[1:])
        self.characters = np.diff(self._lengths_before[self._word_at])

    def with_any(self, bits: int) -> _Flags:
        """Which documents have a character with one of these bits."""
        found = self.bits & bits != 0
        if not found.any():
            return np.zeros(len(self.words), dtype=bool)
        return np.diff(_sums(found)[self._starts]) > 0

    # -- words ------------------------------------------------------------------------------------

    def of_words(self, values: NDArray[np.generic]) -> _Numbers:
        """The sums over the words of each document."""
        return np.diff(_sums(values)[self._word_at])

    @cached_property
    def with_letter(self) -> _Flags:
        letters = _sums(self.bits & _LETTER)
        return letters[self._after] > letters[self._first]

    def ends_in(self, bit: int, edge: int) -> _Flags:
        """Which words end in a character with a bit, before at most one with the bit `edge`."""
        last, before = self.bits[self._after - 1], self.bits[self._after - 2]
        return (last & bit != 0) | ((last & edge != 0) & (before & bit != 0))

    def among(self, packed: _Hashes) -> _Flags:
        """Which words of at most four characters are among the sorted `packed`."""
        lengths = self._after - self._first
        found = np.zeros(len(lengths), dtype=bool)
        for length in range(1, 5) if len(packed) else ():
            at = np.flatnonzero(lengths == length)
            first = self._first[at]
            words = self._codes[first].astype(np.uint64)
            for i in range(1, length):
                words |= self._codes[first + i].astype(np.uint64) << np.uint64(16 * i)
            places = np.minimum(np.searchsorted(packed, words), len(packed) - 1)
            found[at] = packed[places] == words
        return found

    @cached_property
    def _sums_of_codes(self) -> _Hashes:
        """The polynomial of all characters before each, whose differences give any part's hash."""
        sums = np.zeros(len(self._codes) + 1, dtype=np.uint64)
        np.cumsum(self._codes * _powers(_BASE)[: len(self._codes)], out=sums[1:])  # wraps around
        return sums

    def _hashes(self, first: _Numbers, after: _Numbers) -> _Hashes:
        inverse = _powers(pow(_BASE, -1, 1 << 64))
        return (self._sums_of_codes[after] - self._sums_of_codes[first]) * inverse[first]

    @cached_property
    def _word_hashes(self) -> _Hashes:
        return self._hashes(self._first, self._after)

    @cached_property
    def _document(self) -> _Numbers:
        """The document of each word."""
        return np.repeat(np.arange(len(self.words)), self.words)

    def longest_run(self, n: int) -> _Numbers:
        """The characters of the longest run of n words of each document, or more."""
        lengths = np.zeros(len(self._first) + 1, dtype=np.int64)
        found = self._run_lengths(n)
        lengths[: len(found)] = found
        # also counts runs into the next document; a document without words gets one of another
        return np.maximum.reduceat(lengths, self._word_at[:-1])

    def _run_lengths(self, n: int) -> _Numbers:
        return self._lengths_before[n:] - self._lengths_before[: max(len(self._first) - n + 1, 0)]

    def runs(self, n: int, among: _Flags) -> _Repeats:
        """The repeats of runs of n words in the documents `among`; 0 for the others."""
        count = max(len(self._first) - n + 1, 0)
        inside = self._document[:count] == self._document[n - 1 :]
        if not among.all():
            inside &= among[self._document[:count]]
        at = np.flatnonzero(inside)
        hashes = self._word_hashes[at]
        for i in range(1, n):
            hashes *= _MULTIPLY
            hashes += self._word_hashes[at + i]
        return self._repeats(hashes, self._run_lengths(n)[at], self._document[at])

    def _repeats(self, hashes: _Hashes, lengths: _Numbers, document: _Numbers) -> _Repeats:
        hashes ^= hashes >> np.uint64(32)
        hashes *= _FINISH
        keys = (hashes >> np.uint64(64 - _HASH_BITS)) << np.uint64(_LENGTH_BITS)
        keys |= lengths.astype(np.uint64)
        keys |= document.astype(np.uint64) << _DOCUMENT_SHIFT
        keys.sort()
        again = keys[1:][keys[1:] == keys[:-1]]
        of, sizes = _parts(again)
        documents = len(self.words)
        most, top = np.zeros((2, documents), dtype=np.int64)
        if len(again):
            begins = np.flatnonzero(np.concatenate(([True], again[1:] != again[:-1])))
            times = np.diff(begins, append=len(again)) + 1
            groups = of[begins]
            changes = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
            most[groups[changes]] = np.maximum.reduceat(times, changes)
            top[groups[changes]] = np.maximum.reduceat(times * sizes[begins], changes)
        repeated = np.bincount(of, weights=sizes, minlength=documents).astype(np.int64)
        return _Repeats(np.bincount(of, minlength=documents), repeated, most, top)

    # -- lines, those without words left out ------------------------------------------------------

    @cached_property
    def _newlines(self) -> _Numbers:
        return np.flatnonzero(self._codes == 10)

    @cached_property
    def line_ends(self) -> _Numbers:
        at = np.searchsorted(self._newlines, self._starts)
        return np.diff(at) - 1  # without the one after the document

    @cached_property
    def _line_words(self) -> tuple[_Numbers, _Numbers]:
        """The first word of each line, and the last."""
        first = np.searchsorted(self._first, self._newlines)
        first = first[np.concatenate((first[1:] != first[:-1], [False]))]  # the last: no words left
        return first, np.append(first, len(self._first))[1:] - 1

    @cached_property
    def _line_at(self) -> _Numbers:
        return np.searchsorted(self._line_words[0], self._word_at)

    @cached_property
    def lines(self) -> _Numbers:
        return np.diff(self._line_at)

    def of_lines(self, values: NDArray[np.generic]) -> _Numbers:
        return np.diff(_sums(values)[self._line_at])

    @cached_property
    def _line_limits(self) -> tuple[_Numbers, _Numbers]:
        first, last = self._line_words
        return self._first[first], self._after[last]

    @cached_property
    def line_lengths(self) -> _Numbers:
        first, after = self._line_limits
        return after - first

    @cached_property
    def line_edges(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The bits of the first and the last character of each line."""
        first, after = self._line_limits
        return self.bits[first], self.bits[after - 1]

    @cached_property
    def in_ellipsis(self) -> _Flags:
        after, codes = self._line_limits[1], self._codes
        dots = (codes[after - 1] == 46) & (codes[after - 2] == 46)
        dots &= (self.line_lengths >= 3) & (codes[np.maximum(after - 3, 0)] == 46)
        return dots | (codes[after - 1] == ord(ELLIPSIS))

    @cached_property
    def repeated_lines(self) -> _Repeats:
        first, after = self._line_limits
        document = np.repeat(np.arange(len(self.lines)), self.lines)
        return self._repeats(self._hashes(first, after), self.line_lengths, document)


def _blocks(texts: Sequence[str]) -> Iterator[list[int]]:
    """The numbers of the texts that are screened together; too long ones are in none."""
    held: list[int] = []
    size = 0
    for number, text in enumerate(texts):
        if len(text) > LONGEST:
            continue
        if held and (size + len(text) > BLOCK_CHARACTERS or len(held) == BLOCK_DOCUMENTS):
            yield held
            held, size = [], 0
        held.append(number)
        size += len(text)
    if held:
        yield held


def _sums(values: NDArray[np.generic]) -> _Numbers:
    """The sums of all values before each, and of all: (n,) -> (n + 1,)."""
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _parts(keys: _Hashes) -> tuple[_Numbers, _Numbers]:
    return (keys >> _DOCUMENT_SHIFT).astype(np.int64), (keys & _LENGTH_MASK).astype(np.int64)


def _packed(word: str) -> int:
    return sum(ord(character) << 16 * i for i, character in enumerate(word))


@cache
def _powers(base: int) -> _Hashes:
    """Powers of a number modulo 2^64, for each character of the longest block."""
    powers = np.full(BLOCK_CHARACTERS + BLOCK_DOCUMENTS + 2, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


@cache
def _spaces() -> list[str]:
    return list(filter(str.isspace, map(chr, range(_LAST_CODE))))


@cache
def _bits(particles: tuple[str, ...]) -> NDArray[np.uint8]:
    """The bits of each character up to `_LAST_CODE`, which has none."""
    bits = character_classes().copy()
    for bit, characters in (
        (_SPACE, _spaces()),
        (_BULLET, BULLETS),
        (_END, SENTENCE_ENDS),
        (_EDGE, tuple(EDGES)),
        (_PARTICLE, particles),
    ):
        bits[[ord(character) for character in characters]] |= bit
    bits[_LAST_CODE] = 0
    return bits
