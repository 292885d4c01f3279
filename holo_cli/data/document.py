"""One document on its way from a source to the token shards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Document:
    """A text with what is known about it.

    `language` is an ISO 639-1 code ("en", "ko", ...) or "" when unknown; `source` names where it
    came from (a dataset or a file); `split` is "train" or "val" when the source itself decides,
    else "" and a hash of the text decides. `score` is the source's own judgement of the text where
    it has one (FineWeb-Edu: educational value, 0 to 5), else None.
    """

    text: str
    language: str = ""
    source: str = ""
    split: str = ""
    score: float | None = None


def utf8_length(text: str) -> int:
    """Bytes of the text in UTF-8; at once for ASCII, of which Python knows that it is."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
