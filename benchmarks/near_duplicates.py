"""Pairs of documents of a known similarity, for measuring the detection of near duplicates.

Words of a document are replaced by words of other documents, in a seeded order, until the copy has
the requested Jaccard similarity, which is computed exactly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from holo_cli.data.cleaning.fingerprint import jaccard

TOLERANCE = 0.01


def altered(text: str, others: Sequence[str], similarity: float, rng: random.Random) -> str:
    """A copy of `text` whose Jaccard similarity to it is within 0.01 of `similarity`.

    `others`: replacement words. ValueError if the text is too short for this precision.
    """
    words = text.split(" ")
    order = list(range(len(words)))
    rng.shuffle(order)
    changes = [(at, rng.choice(others)) for at in order]
    low, high = 0, len(changes)  # the similarity falls with the number of changes, but for noise
    while low < high:
        middle = (low + high) // 2
        if jaccard(text, _changed(words, changes[:middle])) > similarity:
            low = middle + 1
        else:
            high = middle
    for count in range(max(low - 3, 0), low + 4):
        copy = _changed(words, changes[:count])
        if abs(jaccard(text, copy) - similarity) <= TOLERANCE:
            return copy
    raise ValueError("the text is too short for the requested similarity")


def _changed(words: Sequence[str], changes: Sequence[tuple[int, str]]) -> str:
    new = list(words)
    for at, word in changes:
        new[at] = word
    return " ".join(new)
