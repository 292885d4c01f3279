"""The perplexity of a text under a character n-gram model of a reference text.

The model is an n-gram model of order 5 over characters, interpolated with the shorter orders by
the rule of Witten and Bell (1991):

    P_n(c | h) = (N(h c) + T(h) P_n-1(c | h')) / (N(h) + T(h))

N counts occurrences in the reference, T(h) is the number of different characters after the context
h, h' is h without its first character, and P_0 is uniform over all code points. Counts are in
hashed tables of 2^20 entries; collisions are ignored and make a rare context look slightly more
frequent. Scoring takes a few numpy gathers per character.

Documents are not filtered by perplexity itself, which differs between languages (a Korean character
has about three times the information of an English one), but by the **ratio**: bits per character
of the document over bits per character of held-out reference text in the same language.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holo_cli.data import segment
from holo_cli.data.cleaning.settings import CleaningSettings
from holo_cli.data.language import detect
from holo_cli.data.normalize import to_nfc
from holo_cli.errors import DataError
from holo_cli.names import existing

ORDER = 5
BLOCK = 1 << 20  # characters of a reference read at once
PLACES = 1 << 20
SCORED = 4000  # characters of a document that are scored
REFERENCE_CHARACTERS = 4_000_000  # used of a reference; more would overfill the tables
HELD_OUT = 10  # about one in ten documents of the reference, by a hash
_LEAST_HELD_OUT = 2000  # characters of a language, else its documents are not judged
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_FINISH = np.uint64(0xD6E8FEB86659FD93)

_Table = NDArray[np.float32]


class CharacterModel:
    """The counts of one reference. Memory: 15 tables of 4 MB."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Count the n-grams of the texts; none crosses the border of two texts."""
        codes = [_codes(text) for text in texts]
        starts = np.zeros(sum(map(len, codes)), dtype=bool)
        starts[np.cumsum([0, *map(len, codes)])[:-1]] = True
        joined = np.concatenate(codes)
        self._levels: list[tuple[_Table, _Table, _Table]] = []
        for length in range(ORDER):
            context = _contexts(joined, length)
            pair = _extended(context, joined)
            use = _inside(starts, length)
            first = np.unique(pair[use], return_index=True)[1]
            at = _place(context[use])
            # the third table counts each distinct pair of a context once
            self._levels.append((_count(_place(pair[use])), _count(at), _count(at[first])))

    def bits_per_character(self, text: str) -> float:
        """The mean of -log2 P over the first `SCORED` characters; 0 for an empty text."""
        codes = _codes(text[:SCORED])
        if not len(codes):
            return 0.0
        chance = np.full(len(codes), 1 / 0x110000)
        for length, (pairs, contexts, kinds) in enumerate(self._levels):
            context = _contexts(codes, length)
            at = _place(context)
            n, t = contexts[at], kinds[at]
            seen = n > 0
            seen[:length] = False  # the context would begin before the text
            finer = (pairs[_place(_extended(context, codes))] + t * chance) / np.maximum(n + t, 1)
            chance = np.where(seen, finer, chance)
        return float(-np.log2(chance).mean())


class Reference:
    """A model, and the bits per character of held-out reference text in each language."""

    def __init__(self, documents: Iterable[str]) -> None:
        """Holds out about every tenth document. ValueError if that is too little text."""
        learnt: list[str] = []
        held: dict[str, list[str]] = {}
        for text in documents:
            if zlib.crc32(text.encode("utf-8")) % HELD_OUT == 0:
                held.setdefault(detect(text), []).append(text)
            else:
                learnt.append(text)
        held = {code: t for code, t in held.items() if sum(map(len, t)) >= _LEAST_HELD_OUT}
        if not held:
            raise ValueError("too little text")
        self.model = CharacterModel(learnt)
        self.bits = {
            code: float(
                np.average(
                    [self.model.bits_per_character(text) for text in texts],
                    weights=[min(len(text), SCORED) for text in texts],
                )
            )
            for code, texts in held.items()
        }

    def ratio(self, text: str, language: str = "") -> float:
        """Bits per character of a text over those of held-out reference text in its language.

        0 if the reference has too little text in the language, so that no limit drops the text.
        """
        usual = self.bits.get(language or detect(text))
        return self.model.bits_per_character(text) / usual if usual else 0.0


def load_reference(settings: CleaningSettings) -> Reference:
    """Train the reference model of `settings`. DataError for unreadable or too little text."""
    path = existing(settings.reference)
    try:
        return Reference(_documents(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The reference text {path} cannot be read: {error}.",
            next_step="--filter reference=FILE needs a text file in UTF-8.",
        ) from error
    except ValueError as error:
        raise DataError(
            f"The reference text {path} is too short.",
            next_step=f"Use at least {HELD_OUT * _LEAST_HELD_OUT:,} characters, in documents "
            "separated by two empty lines.",
        ) from error


def _documents(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        whole = segment.count_separators(iter(partial(file.read, BLOCK), "")) >= segment.ENOUGH
    size = 0
    with path.open(encoding="utf-8") as file:
        for text in segment.documents(iter(partial(file.read, BLOCK), ""), whole=whole):
            if size >= REFERENCE_CHARACTERS:
                return
            size += len(text)
            yield to_nfc(text)


def _codes(text: str) -> NDArray[np.uint64]:
    data = text.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(data, dtype="<u4").astype(np.uint64)


def _contexts(codes: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A hash of the `length` characters before each; not meaningful for the first `length`."""
    hashes = np.full(len(codes), length + 1, dtype=np.uint64)
    for back in range(length, 0, -1):
        hashes *= _MULTIPLY  # wraps around
        hashes[back:] += codes[: max(len(codes) - back, 0)]
    return hashes


def _extended(contexts: NDArray[np.uint64], codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return contexts * _MULTIPLY + (codes << np.uint64(7)) + np.uint64(1)


def _inside(starts: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Where at least `length` characters of the same text come before."""
    inside = np.ones(len(starts), dtype=bool)
    for back in range(length):
        inside[back:] &= ~starts[: max(len(starts) - back, 0)]
    return inside


def _place(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    mixed = (hashes ^ (hashes >> np.uint64(32))) * _FINISH
    return (mixed >> np.uint64(64 - PLACES.bit_length() + 1)).astype(np.int64)


def _count(places: NDArray[np.int64]) -> _Table:
    return np.bincount(places, minlength=PLACES).astype(np.float32)
