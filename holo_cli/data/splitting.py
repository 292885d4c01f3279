"""Which documents validate, and which languages need markers: decided from a set's beginning.

A document's place is its hash's: sha256 of the text, read as a number in [0, 1), at or below
`threshold` is validation. It never depends on order, so the same text is always on the same side,
and a set that grows keeps its validation documents. The first thousand documents are looked at
once before anything is written, so that a small set too has something on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from holo_cli.data.document import Document
from holo_cli.data.meta import Split
from holo_cli.data.segment import split_in_two
from holo_cli.errors import DataError

VAL_FRACTION = 0.05
DIVISIBLE = 1000  # characters on average from which on documents may be divided
PEEK_DOCUMENTS, PEEK_CHARACTERS, PEEK_LEAST = 1000, 16_000_000, 100


def hash_fraction(text: str) -> float:
    """The text's place in [0, 1), the same everywhere and always."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class SplitPlan:
    """How the documents of a set are divided. `cut`: each is divided in itself."""

    threshold: float
    cut: bool
    fraction: float
    languages: tuple[str, ...]  # those known to be in the set

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `SplitPlan.of` gives it back."""
        return {**asdict(self), "languages": list(self.languages)}

    @classmethod
    def of(cls, data: dict[str, Any]) -> SplitPlan:
        return cls(**{**data, "languages": tuple(data["languages"])})

    def place(self, document: Document) -> Iterator[tuple[Split, Document]]:
        """The document with its split; two parts of it where the whole set is one text."""
        if self.cut:
            head, tail = split_in_two(document.text, self.fraction)
            yield "train", replace(document, text=head)
            yield "val", replace(document, text=tail)
        elif document.split:
            yield ("val" if document.split == "val" else "train"), document
        else:
            yield ("val" if hash_fraction(document.text) <= self.threshold else "train"), document


@dataclass(frozen=True, slots=True)
class DocumentStats:
    """What the plan needs to know of a document at the beginning of a set."""

    place: float | None  # of its hash; None where its source decides
    characters: int
    language: str
    split: str

    @classmethod
    def of(cls, document: Document) -> DocumentStats:
        place = None if document.split else hash_fraction(document.text)
        return cls(place, len(document.text), document.language, document.split)


def peek(documents: Iterable[Document]) -> tuple[list[DocumentStats], bool]:
    """The beginning of a set, bounded; and whether that was all of it.

    However long they are, at least `PEEK_LEAST` documents are seen: from fewer, nothing follows
    for the share that their hashes put on one side.
    """
    stream = iter(documents)
    begun: list[DocumentStats] = []
    size = 0
    for document in islice(stream, PEEK_DOCUMENTS):
        begun.append(DocumentStats.of(document))
        size += len(document.text)
        if size > PEEK_CHARACTERS and len(begun) >= PEEK_LEAST:
            break
    return begun, next(stream, None) is None


def plan_split(begun: Sequence[DocumentStats], complete: bool, fraction: float) -> SplitPlan:
    """A plan under which neither side is empty, for a set that begins with `begun`.

    DataError where there is not text enough for two sides.
    """
    languages = tuple(sorted({seen.language for seen in begun if seen.language}))
    declared = {seen.split for seen in begun if seen.split}
    free = sorted({seen.place for seen in begun if seen.place is not None})
    threshold = fraction
    if free and "val" not in declared:
        threshold = max(threshold, free[0])  # the smallest hash, if none would validate
    if free and complete and "train" not in declared and free[-1] <= threshold and len(free) > 1:
        threshold = free[-2]  # the largest hash, if none would train
    one_text = complete and bool(free) and not declared
    if one_text:
        threshold, one_text = _fit_small(begun, threshold, fraction)
    one_side = complete and not free and len(declared) == 1
    if (one_text or one_side) and any(seen.characters < 2 for seen in begun):
        raise DataError(
            "The source is too short to be divided into training and validation text.",
            next_step="Name a source with more text.",
        )
    return SplitPlan(threshold, one_text or one_side, fraction, languages)


def _fit_small(
    begun: Sequence[DocumentStats], threshold: float, fraction: float
) -> tuple[float, bool]:
    """(threshold, whether to cut every document) for a set that is known whole.

    A few long documents can put far too much on one side. The threshold is kept while validation
    gets between half and twice the share asked for; else it moves to the share that comes nearest;
    and where even that is off, every document is divided in itself if they are long.
    """

    def share(limit: float) -> float:
        return sum(n for place, n in sizes if place <= limit) / total

    def fits(limit: float) -> bool:
        return fraction / 2 <= share(limit) <= 2 * fraction

    sizes = [(seen.place, seen.characters) for seen in begun if seen.place is not None]
    total = sum(n for _, n in sizes) or 1
    if fits(threshold):
        return threshold, False
    limits = sorted(place for place, _ in sizes)[:-1]  # the last one would leave no training text
    if limits:
        threshold = min(limits, key=lambda limit: abs(share(limit) - fraction))
    long = total / len(sizes) > DIVISIBLE
    return threshold, not limits or (long and not fits(threshold))
