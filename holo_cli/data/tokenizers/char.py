"""One token per character; the alphabet is that of the training text.

Small vocabularies learn fast and are easy to inspect: tiny Shakespeare has 65 characters. Other
characters cannot be encoded: in a prompt they are dropped (`unknown` lists them, for a warning),
and preparing a set with them is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.tokenizers.base import Tokenizer, append_specials
from holo_cli.errors import DataError

CODE_POINTS = 0x110000


class CharTokenizer(Tokenizer):
    """Token i is character i of the alphabet; special tokens follow."""

    kind = "char"

    def __init__(self, characters: str, specials: Mapping[str, int] | None = None) -> None:
        if len(set(characters)) != len(characters):
            raise DataError("The tokenizer's list of characters has duplicates.")
        self.characters = characters
        self.ordinary = len(characters)
        self.specials = append_specials(self.ordinary, (), specials)
        self._table: NDArray[np.int32] = np.full(CODE_POINTS, -1, dtype=np.int32)
        self._table[[ord(c) for c in characters]] = np.arange(self.ordinary)

    @classmethod
    def train(cls, texts: Iterable[str], special_names: Iterable[str] = ()) -> CharTokenizer:
        """Collect the alphabet of `texts`, in code point order."""
        found: set[str] = set()
        for text in texts:
            found.update(text)
        if not found:
            raise DataError("There is no text to train the tokenizer on.")
        return cls("".join(sorted(found))).with_specials(special_names)

    def with_specials(self, names: Iterable[str]) -> CharTokenizer:
        return CharTokenizer(self.characters, append_specials(self.ordinary, names, self.specials))

    def _encode(self, text: str) -> list[int]:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        ids = self._table[points]
        known: list[int] = ids[ids >= 0].tolist()
        return known

    def unknown(self, text: str) -> list[str]:
        return sorted(set(text).difference(self.characters))

    def _bytes(self, token: int) -> bytes:
        return self.characters[token].encode("utf-8")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters, "specials": self.specials}
