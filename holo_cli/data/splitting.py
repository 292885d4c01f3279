"""The train/validation split, decided from the first documents of a set.

The sha256 of a document's text is read as a number in [0, 1); a value of at most `threshold` puts
the document into validation. The split does not depend on the order, so the same text is always in
the same split, and a set that grows keeps its validation documents. The first thousand documents
are read once before anything is written, so that in a small set neither split is empty.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from holo_cli.data.document import Document
from holo_cli.data.language import detect
from holo_cli.data.meta import Split
from holo_cli.data.segment import split_in_two
from holo_cli.errors import DataError

VAL_FRACTION = 0.05
DIVISIBLE = 1000  # mean characters above which each document may be divided into both splits
LEAST_SHARE = 0.01  # of the characters: of a language that is marked though no source names it
VOTE_LETTERS, VOTE_SAMPLE = 30, 900  # fewer letters say little about the language
PEEK_DOCUMENTS, PEEK_CHARACTERS, PEEK_LEAST = 1000, 16_000_000, 100


def hash_fraction(text: str) -> float:
    """A hash of the text as a number in [0, 1), the same on every machine."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class SplitPlan:
    """How the documents of a set are split. `cut`: every document is divided into both splits."""

    threshold: float
    cut: bool
    fraction: float
    languages: tuple[str, ...]  # languages found in the set so far
    marked: bool = False  # also a single language gets its marker, which a given tokenizer has

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `SplitPlan.of` is the inverse."""
        return {**asdict(self), "languages": list(self.languages)}

    @classmethod
    def of(cls, data: dict[str, Any]) -> SplitPlan:
        return cls(**{**data, "languages": tuple(data["languages"])})

    def assign(self, document: Document) -> Iterator[tuple[Split, Document]]:
        """Yield (split, document); two parts where every document is divided."""
        if self.cut and document.messages:
            raise _too_few()
        if self.cut:
            head, tail = split_in_two(document.text, self.fraction)
            yield "train", replace(document, text=head)
            yield "val", replace(document, text=tail)
        elif document.split:
            yield ("val" if document.split == "val" else "train"), document
        else:
            yield ("val" if hash_fraction(document.text) <= self.threshold else "train"), document


def _too_few() -> DataError:
    return DataError(
        "There are too few conversations to be split into training and validation.",
        next_step="Use more of them: each is in one of the two, whole.",
    )


@dataclass(frozen=True, slots=True)
class DocumentStats:
    """What `plan_split` needs to know about one of the first documents."""

    fraction: float | None  # `hash_fraction` of the text; None where the source sets the split
    characters: int
    language: str  # as the source says
    split: str
    whole: bool = False  # a conversation, which is never divided
    detected: str = ""  # where the source says none, and languages are asked for

    @classmethod
    def of(cls, document: Document, languages: bool = False) -> DocumentStats:
        fraction = None if document.split else hash_fraction(document.text)
        known, text = document.language, document.text
        detected = ""
        if languages and not known and sum(map(str.isalpha, text[:VOTE_SAMPLE])) >= VOTE_LETTERS:
            detected = detect(text)
        whole = bool(document.messages)
        return cls(fraction, len(text), known, document.split, whole, detected)


def peek(
    documents: Iterable[Document], languages: bool = False
) -> tuple[list[DocumentStats], bool]:
    """Statistics of the first documents of a set, and whether these are all of it.

    `languages`: detect those that the source does not give.

    At least `PEEK_LEAST` documents are read, however long they are: fewer would not estimate the
    share that the hash puts into validation.
    """
    stream = iter(documents)
    first: list[DocumentStats] = []
    size = 0
    for document in islice(stream, PEEK_DOCUMENTS):
        first.append(DocumentStats.of(document, languages))
        size += len(document.text)
        if size > PEEK_CHARACTERS and len(first) >= PEEK_LEAST:
            break
    return first, next(stream, None) is None


def plan_split(first: Sequence[DocumentStats], complete: bool, fraction: float) -> SplitPlan:
    """A plan with two non-empty splits, for a set whose first documents are `first`.

    `complete`: these are all documents. Raises DataError for too little text.
    """
    languages = tuple(sorted(languages_in(first)))
    declared = {stats.split for stats in first if stats.split}
    free = sorted({stats.fraction for stats in first if stats.fraction is not None})
    threshold = fraction
    if free and "val" not in declared:
        threshold = max(threshold, free[0])  # the smallest hash, if none would validate
    if free and complete and "train" not in declared and free[-1] <= threshold and len(free) > 1:
        threshold = free[-2]  # the largest hash, if none would train
    one_text = complete and bool(free) and not declared
    if one_text:
        threshold, one_text = _fit_small(first, threshold, fraction)
        one_text = one_text and (len(free) < 2 or not all(stats.whole for stats in first))
    one_side = complete and not free and len(declared) == 1
    if (one_text or one_side) and any(stats.characters < 2 for stats in first):
        raise DataError(
            "The source is too short to be split into training and validation text.",
            next_step="Use a source with more text.",
        )
    return SplitPlan(threshold, one_text or one_side, fraction, languages)


def languages_in(first: Sequence[DocumentStats], least: int = 2) -> set[str]:
    """The languages that the source gives, and the detected ones with enough of the text.

    Fewer than `least` languages are dropped: a single one needs no marker, and a source without
    languages is then a set without languages.
    """
    given = {stats.language for stats in first if stats.language}
    sizes: Counter[str] = Counter()
    for stats in first:
        sizes[stats.language or stats.detected] += stats.characters
    enough = LEAST_SHARE * sizes.total()
    found = given | {code for code, size in sizes.items() if code and size > enough}
    return found if len(found) >= least else given


def _fit_small(
    first: Sequence[DocumentStats], threshold: float, fraction: float
) -> tuple[float, bool]:
    """(threshold, whether to divide every document) for a set that was read to its end.

    A few long documents can put far too much text into one split. The threshold is kept while
    validation gets between half and twice `fraction` of the characters. Otherwise it moves to the
    value whose share is nearest to `fraction`; if that misses too and the documents are long, every
    document is divided into both splits.
    """

    def share(limit: float) -> float:
        return sum(n for value, n in sizes if value <= limit) / total

    def fits(limit: float) -> bool:
        return fraction / 2 <= share(limit) <= 2 * fraction

    sizes = [(stats.fraction, stats.characters) for stats in first if stats.fraction is not None]
    total = sum(n for _, n in sizes) or 1
    if fits(threshold):
        return threshold, False
    limits = sorted(value for value, _ in sizes)[:-1]  # the last would leave no training text
    if limits:
        threshold = min(limits, key=lambda limit: abs(share(limit) - fraction))
    long = total / len(sizes) > DIVISIBLE
    return threshold, not limits or (long and not fits(threshold))
