"""Streaming decoding: `push` returns complete characters only.

A token boundary can split two things. The bytes of one code point: a Hangul syllable has three
bytes, an emoji four, and a byte-level token can end between them. And a user-perceived character of
several code points: a family emoji (people joined by ZWJ), a flag (two regional indicators), a
thumb with a skin tone, a Devanagari letter with its vowel sign, Hangul in single jamo. The first
are buffered until complete; the second until a code point follows that does not belong to them.

Latin, Greek, Cyrillic, precomposed Hangul, kana and Chinese characters are emitted at once: in NFC
text nothing attaches to them, and buffering the last letter of each word would delay every stream.
A separate combining accent is emitted when it arrives.
"""

from __future__ import annotations

import codecs
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable

ZWJ = "\u200d"
LONGEST = 64  # buffered code points at most, so that endless joining cannot block a stream


class StreamDecoder(ABC):
    """All results of `push` plus `flush()` equal `decode` of the ids."""

    @abstractmethod
    def push(self, token: int) -> str:
        """The text that is complete with this token; may be empty."""

    @abstractmethod
    def flush(self) -> str:
        """The rest of the buffer, incomplete bytes as U+FFFD; resets the decoder."""


class ByteStreamDecoder(StreamDecoder):
    """For tokenizers whose tokens are bytes, independent of the context."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._buffer = ""

    def push(self, token: int) -> str:
        text = self._buffer + self._decoder.decode(self._token_bytes(token))
        stable = stable_length(text)
        self._buffer = text[stable:]
        return text[:stable]

    def flush(self) -> str:
        text = self._buffer + self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._buffer = ""
        return text


class TextStreamDecoder(StreamDecoder):
    """For tokenizers that only decode whole sequences (WordPiece, for example).

    Decodes all ids again at each token and emits all but the last two words, in which such decoders
    may still change spaces.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._emitted = ""

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._decode(self._ids)
        settled = text.rsplit(" ", 2)[0] if text.count(" ") >= 2 else ""
        settled = settled[: stable_length(settled)].rstrip("\ufffd")
        if not settled.startswith(self._emitted):
            return ""
        new = settled[len(self._emitted) :]
        self._emitted = settled
        return new

    def flush(self) -> str:
        text = self._decode(self._ids)
        new = text[len(self._emitted) :]
        self._ids, self._emitted = [], ""
        return new


def stable_length(text: str) -> int:
    """Length of the prefix of `text` that is complete whatever follows.

    >>> stable_length("ab한")
    3
    >>> stable_length("a\U0001f44d")  # a skin tone may follow
    1
    """
    if not text or not _may_grow(text[-1]):
        return len(text)
    start = len(text) - 1
    while start > 0 and _joins(text, start):
        start -= 1
    return start if len(text) - start <= LONGEST else len(text)


def _may_grow(char: str) -> bool:
    """Whether a following code point may belong to the same user-perceived character."""
    if char < "\u0590":  # Latin, Greek, Cyrillic, Armenian and their combining marks
        return False
    if char == ZWJ or any(test(char) for test in (_is_jamo, _is_regional, _is_pictograph, _is_tag)):
        return True
    category = unicodedata.category(char)
    if category in ("Mn", "Mc", "Me"):
        return True
    east_asian = "\u2e80" <= char <= "\uffef" or char >= "\U00020000"
    return category == "Lo" and not east_asian


def _joins(text: str, i: int) -> bool:
    """Whether code points i - 1 and i belong to the same user-perceived character."""
    here, before = text[i], text[i - 1]
    if here == ZWJ or before == ZWJ or _is_skin_tone(here) or _is_tag(here):
        return True
    if unicodedata.category(here) in ("Mn", "Mc", "Me"):
        return True
    if _is_regional(here) and _is_regional(before):
        start = i
        while start > 0 and _is_regional(text[start - 1]):
            start -= 1
        return (i - start) % 2 == 1  # flags are pairs, counted from the start of the run
    return _is_jamo(here) and _is_jamo(before)


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _is_skin_tone(char: str) -> bool:
    return "\U0001f3fb" <= char <= "\U0001f3ff"


def _is_tag(char: str) -> bool:
    """Tag characters, as in the flags of England and Scotland."""
    return "\U000e0020" <= char <= "\U000e007f"


def _is_jamo(char: str) -> bool:
    return "\u1100" <= char <= "\u11ff"


def _is_pictograph(char: str) -> bool:
    """Emoji and the older symbols that a variation selector turns into emoji."""
    return "\U0001f000" <= char <= "\U0001faff" or "\u2600" <= char <= "\u27bf"
