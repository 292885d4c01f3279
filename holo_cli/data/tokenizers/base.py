"""The interface of all tokenizers: encoding, decoding, and streaming decoding.

A token is a sequence of UTF-8 bytes. `token_bytes` maps an id to its bytes; decoding, streaming and
the pieces shown on pages are derived from it here for every kind of tokenizer.

Special tokens (the end of a document, the language markers) have no bytes. Their ids mostly follow
the ordinary ones, and `encode` never produces them: the text "<|end|>" in a document or a prompt is
several ordinary tokens, as any other text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from holo_cli.data.chat_format import END, MARK_NAMES, ROLES
from holo_cli.data.document import utf8_length
from holo_cli.data.tokenizers.streaming import ByteStreamDecoder, StreamDecoder
from holo_cli.errors import DataError, UsageError
from holo_cli.files import atomic_write_text

# the special tokens of holo: the end, the marks of the chat format, the markers of languages
SPECIAL = re.compile(rf"<\|(end|{'|'.join(ROLES)}|[a-z]{{2,3}})\|>")
FILE = "tokenizer.json"


def marker_name(language: str) -> str:
    """The special token at the beginning of a document in a language: "ko" -> "<|ko|>"."""
    return f"<|{language}|>"


def special_names(languages: Sequence[str] = (), chat: bool = False) -> list[str]:
    """The special tokens of a set: the end token, one marker per language in `languages`, and those
    of the chat format if it has conversations."""
    markers = [marker_name(language) for language in sorted(set(languages))]
    return [END, *markers, *(MARK_NAMES if chat else ())]


def append_specials(
    ordinary: int, names: Iterable[str], present: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Ids for special tokens: those in `present` are kept, new ones follow the last used id."""
    specials = dict(present or {})
    following = max([ordinary - 1, *specials.values()]) + 1
    for name in [END, *names]:
        if name not in specials:
            specials[name] = following
            following += 1
    return specials


class Tokenizer(ABC):
    """Base class of all tokenizers. Immutable and safe to share between threads."""

    kind: str  # "char", "bpe", "tiktoken:gpt2", "sentencepiece", "tokenizer.json"
    specials: dict[str, int]
    ordinary: int  # ids 0 .. ordinary - 1 are the vocabulary without appended special tokens

    # -- the vocabulary ---------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return max(self.ordinary, *(i + 1 for i in self.specials.values()))

    @property
    def end(self) -> int:
        """The id that ends a document."""
        return self.specials[END]

    def marker(self, language: str) -> int | None:
        """The id of the marker of `language`; None if there is no such marker."""
        return self.specials.get(marker_name(language))

    def unsampled(self, vocab_size: int) -> list[int]:
        """Ids that a model of `vocab_size` rows must never sample: markers, and rows beyond this
        vocabulary."""
        special = [i for i in self.specials.values() if i != self.end]
        return special + list(range(self.vocab_size, vocab_size))

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.specials.values())

    @abstractmethod
    def with_specials(self, names: Iterable[str]) -> Tokenizer:
        """The same tokenizer with the end token and `names` among its specials."""

    # -- text to ids ------------------------------------------------------------------------------

    def encode(self, text: str, lang: str | None = None) -> list[int]:
        """The ids of a text, without special tokens; lone surrogates are encoded as U+FFFD.

        With `lang`, the marker of that language comes first, as at the beginning of a document in a
        set of several languages. Raises UsageError for a language without a marker.
        """
        ids = self._encode(well_formed(text))
        return ids if lang is None else [self._marker_of(lang), *ids]

    def _marker_of(self, lang: str) -> int:
        marker = self.marker(lang)
        if marker is None:
            others = (END, *MARK_NAMES)
            found = [
                m[1] for m in map(SPECIAL.fullmatch, self.specials) if m and m[0] not in others
            ]
            raise UsageError(
                f"This tokenizer has no marker for the language '{lang}'.",
                next_step=f"Its markers are: {', '.join(sorted(found))}."
                if found
                else "Use the tokenizer of a set of several languages, or leave lang out.",
            )
        return marker

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on several cores where the library supports it."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of `text` that `encode` cannot represent."""
        return []

    def text_bytes(self, text: str, ids: Iterable[int]) -> int:
        """UTF-8 bytes of the text that `ids`, the encoded `text`, stand for.

        They differ from those of `text` if the tokenizer changes it (letter case, spaces). Bits
        per byte are counted over them.
        """
        return utf8_length(text)

    # -- ids to text ------------------------------------------------------------------------------

    @abstractmethod
    def _bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one ordinary id."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes of an id, empty for special tokens. DataError for an id out of range."""
        if token in self._special_ids:
            return b""
        self._check(token)
        return self._bytes(token)

    def _check(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise DataError(
                f"Token {token} is outside the vocabulary of this tokenizer, which has "
                f"{self.vocab_size:,} tokens.",
                next_step="Use the tokenizer that the model was trained with.",
            )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without special tokens; invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder that takes one id at a time and emits only complete characters."""
        return ByteStreamDecoder(self.token_bytes)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token, for pages: special tokens by name, other bytes as \\xNN."""
        names = {i: name for name, i in self.specials.items()}
        return [names.get(i) or self._piece(i) for i in ids]

    def _piece(self, token: int) -> str:
        return self.token_bytes(token).decode("utf-8", errors="backslashreplace")

    # -- storage ----------------------------------------------------------------------------------

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as data for JSON; `tokenizer_from_dict` is the inverse."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of `to_dict`, which determines the ids of every text."""
        data = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode("utf-8")).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write `tokenizer.json` to the folder; returns its path."""
        path = folder / FILE
        text = json.dumps({"holo": 1, **self.to_dict()}, ensure_ascii=False)
        atomic_write_text(path, text)
        return path


def well_formed(text: str) -> str:
    """The text with lone surrogates (undecodable terminal input) replaced by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def to_base64(data: bytes) -> str:
    """Bytes as text for JSON."""
    return base64.b64encode(data).decode("ascii")
