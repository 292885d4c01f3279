"""Ids to text as it comes: what `push` returns is always whole characters.

Two things can be cut by a token boundary. The bytes of one code point: a Hangul syllable is three
bytes, an emoji four, and a byte-level token may end in the middle of them. And a character a
person sees, made of several code points: a family emoji (people joined by ZWJ), a flag (two
regional indicators), a thumb with a skin tone, a Devanagari letter with its vowel sign, Hangul
written in single jamo. The first are held back until complete; the second until something
comes that cannot belong to them.

Latin, Greek, Cyrillic, precomposed Hangul, kana and Chinese characters go out at once: in
normalised (NFC) text nothing attaches to them, and holding each word's last letter until the
next token would make every stream look late. An accent that does come alone follows as it is.
"""

from __future__ import annotations

import codecs
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable

ZWJ = "\u200d"
LONGEST = 64  # code points held back at most, so that endless joining cannot stall a stream


class StreamDecoder(ABC):
    """Feed ids to `push`; what it returned so far plus `flush()` equals `decode` of the ids."""

    @abstractmethod
    def push(self, token: int) -> str:
        """The text that became certain with this token; may be empty."""

    @abstractmethod
    def flush(self) -> str:
        """What was still held back; incomplete bytes become U+FFFD. The decoder starts afresh."""


class ByteStream(StreamDecoder):
    """For tokenizers whose tokens stand for bytes, whatever came before."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, token: int) -> str:
        text = self._held + self._decoder.decode(self._token_bytes(token))
        cut = stable_length(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        text = self._held + self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._held = ""
        return text


class TextStream(StreamDecoder):
    """For tokenizers that only decode whole sequences (WordPiece and other foreign files).

    Decodes everything again at each token and gives out what no longer changes: all but the last
    two words, because such decoders may still tidy the spaces there.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._decode(self._ids)
        settled = text.rsplit(" ", 2)[0] if text.count(" ") >= 2 else ""
        settled = settled[: stable_length(settled)].rstrip("\ufffd")
        if not settled.startswith(self._shown):
            return ""
        fresh = settled[len(self._shown) :]
        self._shown = settled
        return fresh

    def flush(self) -> str:
        text = self._decode(self._ids)
        fresh = text[len(self._shown) :]
        self._ids, self._shown = [], ""
        return fresh


def stable_length(text: str) -> int:
    """How much of `text` is whole characters whatever comes next.

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
    """Whether a following code point may become part of the same visible character."""
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
    """Whether code point i belongs to the same visible character as the one before it."""
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
    """What follows a black flag to make it that of England or Scotland."""
    return "\U000e0020" <= char <= "\U000e007f"


def _is_jamo(char: str) -> bool:
    return "\u1100" <= char <= "\u11ff"


def _is_pictograph(char: str) -> bool:
    """Emoji and the older symbols that a variation selector turns into emoji."""
    return "\U0001f000" <= char <= "\U0001faff" or "\u2600" <= char <= "\u27bf"
