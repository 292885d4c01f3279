"""One document on its way from a source to the token shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from holo_cli.data.chat_format import Utterance

_BLOCK = 100_000  # characters split into words at once


class Judgement(NamedTuple):
    """What cleaning found out about a document alone: the rule that it breaks, or "" and its
    fingerprints (see `cleaning.fingerprint`; empty where duplicates are not looked for)."""

    rule: str
    exact: bytes = b""  # 16 bytes
    near: bytes = b""  # the signature, little-endian uint16


@dataclass(slots=True)
class Document:
    """A text and its metadata. Treated as immutable.

    `language` is an ISO 639-1 code ("en", "ko", ...) or "" when unknown; `source` is the name of a
    dataset or a file; `split` is "train" or "val" where the source defines a split, else "" (a hash
    of the text decides). `score` is the educational value that the source gives (FineWeb-Edu: 0 to
    5), `perplexity` the perplexity that the source gives (RedPajama: under a 5-gram model of
    Wikipedia); None where the source gives none. `judged` is there where another process has
    cleaned the document already. A conversation has `messages`, whose texts on lines of their own
    are its `text`.
    """

    text: str
    language: str = ""
    source: str = ""
    split: str = ""
    score: float | None = None
    perplexity: float | None = None
    judged: Judgement | None = field(default=None, repr=False, compare=False)
    messages: tuple[Utterance, ...] = ()
    _size: int = field(default=-1, init=False, repr=False, compare=False)

    @classmethod
    def of_messages(
        cls, messages: Sequence[Utterance], language: str = "", source: str = ""
    ) -> Self:
        """A conversation as a document."""
        text = "\n".join(message.text for message in messages)
        return cls(text, language, source, messages=tuple(messages))

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8, computed on first use."""
        if self._size < 0:
            self._size = utf8_length(self.text)
        return self._size


def utf8_length(text: str) -> int:
    """Bytes of the text in UTF-8, without encoding it where it is ASCII."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_words(text: str) -> int:
    """`len(text.split())` without a list of all words."""
    if len(text) <= _BLOCK:
        return len(text.split())
    words, inside = 0, False
    for start in range(0, len(text), _BLOCK):
        part = text[start : start + _BLOCK]
        words += len(part.split()) - (inside and not part[0].isspace())
        inside = not part[-1].isspace()
    return words
