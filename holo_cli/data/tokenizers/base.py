"""What every tokenizer can do: text to ids, ids to text, and text as it comes.

A token is a piece of UTF-8. `token_bytes` says which bytes an id stands for, and decoding,
streaming and the pieces shown on pages all follow from it here, in one place, for every kind.

Special tokens (the end of a document, the language markers) stand for no bytes at all. They have
ids of their own, mostly after the ordinary ones, and are never produced by `encode`: the text
"<|end|>" typed by a person is five or seven ordinary tokens like any other text.
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

from holo_cli.data.tokenizers.streaming import ByteStream, StreamDecoder
from holo_cli.errors import DataError
from holo_cli.files import atomic_write_text

END = "<|end|>"
SPECIAL = re.compile(r"<\|(end|[a-z]{2,3})\|>")  # the specials of this project
FILE = "tokenizer.json"


def marker_name(language: str) -> str:
    """The special token that opens a document of a language: "ko" -> "<|ko|>"."""
    return f"<|{language}|>"


def special_names(languages: Sequence[str] = ()) -> list[str]:
    """The specials of a set: the end token, and one marker per language where there are several."""
    return [END, *(marker_name(language) for language in sorted(set(languages)))]


def append_specials(
    ordinary: int, names: Iterable[str], present: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Ids for special tokens: those `present` keep theirs, the others follow the last id in use."""
    specials = dict(present or {})
    following = max([ordinary - 1, *specials.values()]) + 1
    for name in [END, *names]:
        if name not in specials:
            specials[name] = following
            following += 1
    return specials


class Tokenizer(ABC):
    """Base of all tokenizers. Immutable; safe to share between threads for reading."""

    kind: str  # "char", "bpe", "tiktoken:gpt2", "sentencepiece", "tokenizer.json"
    specials: dict[str, int]
    ordinary: int  # ids 0 .. ordinary - 1 belong to the vocabulary without appended specials

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
        """The id that opens a document of `language`; None where the set has no such marker."""
        return self.specials.get(marker_name(language))

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.specials.values())

    @abstractmethod
    def with_specials(self, names: Iterable[str]) -> Tokenizer:
        """The same tokenizer with the end token and `names` among its specials."""

    # -- text to ids ------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ordinary ids only. Any string is accepted; lone surrogates are read as U+FFFD."""
        return self._encode(well_formed(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; kinds that can use several cores here do."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that `encode` cannot represent, each once; mostly none."""
        return []

    # -- ids to text ------------------------------------------------------------------------------

    @abstractmethod
    def _bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one ordinary id."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes an id stands for; none for special tokens. An id out of range is refused."""
        if token in self._special_ids:
            return b""
        self._check(token)
        return self._bytes(token)

    def _check(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise DataError(
                f"Token {token} is outside this tokenizer's vocabulary of {self.vocab_size:,}.",
                next_step="The model and the tokenizer do not belong together.",
            )

    def decode(self, ids: Iterable[int]) -> str:
        """Special ids give nothing; bytes that are not UTF-8 give U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder to be fed one id at a time that never shows half a character."""
        return ByteStream(self.token_bytes)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each token readable alone, for pages: specials by name, part of a character as \\xNN."""
        names = {i: name for name, i in self.specials.items()}
        return [names.get(i) or self._piece(i) for i in ids]

    def _piece(self, token: int) -> str:
        return self.token_bytes(token).decode("utf-8", errors="backslashreplace")

    # -- as a value -------------------------------------------------------------------------------

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able data, complete: `tokenizer_from_dict` gives it back."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of everything that decides which text gets which ids."""
        data = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode("utf-8")).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write `tokenizer.json` into the folder and return its path."""
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
