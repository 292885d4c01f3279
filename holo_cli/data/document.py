"""One document on its way from a source to the token shards."""

from __future__ import annotations

from dataclasses import dataclass, field

_BLOCK = 100_000  # characters whose words are told apart at once


@dataclass(slots=True)
class Document:
    """A text with what is known about it; not to be changed once it is made.

    `language` is an ISO 639-1 code ("en", "ko", ...) or "" when unknown; `source` names where it
    came from (a dataset or a file); `split` is "train" or "val" when the source itself decides,
    else "" and a hash of the text decides. `score` is the source's own judgement of how much there
    is to learn from the text (FineWeb-Edu: 0 to 5), `perplexity` its own measure of how unusual the
    text is (RedPajama: under a 5-gram model of Wikipedia); None where it has none.
    """

    text: str
    language: str = ""
    source: str = ""
    split: str = ""
    score: float | None = None
    perplexity: float | None = None
    _size: int = field(default=-1, init=False, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8, worked out when first asked for."""
        if self._size < 0:
            self._size = utf8_length(self.text)
        return self._size


def utf8_length(text: str) -> int:
    """Bytes of the text in UTF-8; at once for ASCII, of which Python knows that it is."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_words(text: str) -> int:
    """What white space separates, as `len(text.split())`, without a list of them all."""
    if len(text) <= _BLOCK:
        return len(text.split())
    words, inside = 0, False
    for start in range(0, len(text), _BLOCK):
        part = text[start : start + _BLOCK]
        words += len(part.split()) - (inside and not part[0].isspace())
        inside = not part[-1].isspace()
    return words
