"""Keeps sampling to tokens that can form whole characters, for tokenizers whose tokens are bytes.

Most Hangul syllables are three bytes of UTF-8, which a byte-level tokenizer may give as up to three
tokens. A sampled token that cannot follow the bytes begun, or an end before a character is whole,
would show as U+FFFD. Such tokens are excluded before every draw, and near the last token also those
that begin a character that could not be finished.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from functools import cached_property

import torch
from torch import Tensor

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.inference.generation.logits import BANNED

MOST_BYTES = 4  # of a character in UTF-8


def begun(data: bytes) -> bytes | None:
    """The bytes at the end of `data` that begin a character; b"" if it is whole, None if it is not
    UTF-8.

    >>> begun("가".encode()[:2]), begun(b"a"), begun(b"\\x80")
    (b'\\xea\\xb0', b'', None)
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return None
    rest = decoder.getstate()[0]
    # two bytes that only half of a surrogate pair begins with, which Python accepts until the third
    return None if rest[:1] == b"\xed" and rest[1:2] >= b"\xa0" else rest


def missing_bytes(begun: bytes) -> int:
    """The bytes that a character still needs after the bytes `begun` of it."""
    if not begun:
        return 0
    lead = begun[0]
    return (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4) - len(begun)


class WholeCharacters:
    """What may follow the bytes begun of a character, as masks over the vocabulary (V).

    `tokenizer` gives the bytes of each token. Tokens without bytes (special ones) may come between
    characters only.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        known = min(tokenizer.vocab_size, vocab_size)
        self.pieces = [tokenizer.token_bytes(token) for token in range(known)]
        self.vocab_size = vocab_size
        self._needed: dict[bytes, Tensor] = {}

    @cached_property
    def is_needed(self) -> bool:
        """Whether any token ends within a character; else there is nothing to guide."""
        return any(begun(piece) != b"" for piece in self.pieces)

    @cached_property
    def _by_first_byte(self) -> dict[int, list[int]]:
        found = defaultdict(list)
        for token, piece in enumerate(self.pieces):
            if piece:
                found[piece[0]].append(token)
        return found

    def after(self, start: bytes, token: int) -> bytes:
        """The bytes begun of a character after one more token; b"" where that is not UTF-8."""
        piece = self.pieces[token] if token < len(self.pieces) else b""
        return begun(start + piece) or b""

    def exclude(self, logits: Tensor, starts: list[bytes], left: list[int]) -> Tensor:
        """(R, V) -> (R, V) with -inf for tokens that cannot follow.

        `starts` are the bytes begun of a character of each row, `left` the tokens that each row may
        have after this one. A row that no token could continue is left as it is.
        """
        logits = logits.clone()
        for row, start, after in zip(logits, starts, left, strict=True):
            needed = self._bytes_needed(start).to(logits.device)
            allowed = needed <= min(after, MOST_BYTES)
            if bool(allowed.any()):
                row[~allowed] = BANNED
        return logits

    def _bytes_needed(self, start: bytes) -> Tensor:
        """(V,) uint8: bytes missing after each token; MOST_BYTES + 1 for one that cannot follow."""
        if start not in self._needed:
            needed = torch.full((self.vocab_size,), MOST_BYTES + 1, dtype=torch.uint8)
            if start:  # only tokens that begin with a continuation byte
                candidates = [t for b in range(0x80, 0xC0) for t in self._by_first_byte.get(b, ())]
            else:
                candidates = list(range(len(self.pieces)))
                needed[len(self.pieces) :] = 0  # rows beyond the tokenizer are excluded elsewhere
            for token in candidates:
                rest = begun(start + self.pieces[token])
                if rest is not None:
                    needed[token] = missing_bytes(rest)
            self._needed[start] = needed
        return self._needed[start]
