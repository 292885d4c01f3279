"""One document on its way from a source to the token shards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Document:
    """A text with what is known about it.

    `language` is an ISO 639-1 code ("en", "ko", ...) or "" when unknown; `source` names where it
    came from (a dataset or a file); `split` is "train" or "val" when the source itself decides,
    else "" and a hash of the text decides.
    """

    text: str
    language: str = ""
    source: str = ""
    split: str = ""
