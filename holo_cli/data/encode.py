"""Tokenizes batches of texts with bounded memory.

A tokenizer needs several hundred bytes per token while it works, so a single line of fifty
megabytes would take gigabytes. A long text is encoded in pieces that end at a paragraph, a line or
a word; the concatenated ids decode to the text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from holo_cli.data.tokenizers import Tokenizer

LONGEST = 200_000  # characters of a piece
AT_ONCE = 1_000_000  # characters per call of the tokenizer, about

AnyIds = NDArray[Any]
"""The ids of a text, (tokens,)."""


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    dtype: DTypeLike = np.uint32,
    prefixes: Sequence[int | None] | None = None,
    suffix: int | None = None,
) -> list[AnyIds]:
    """The ids of each text, after its id in `prefixes` (None: no id) and before the id `suffix`."""
    split = [list(pieces(text)) for text in texts]
    encoded = _encoded(tokenizer, [piece for text in split for piece in text], dtype)
    ids: list[AnyIds] = []
    for number, text in enumerate(split):
        parts = [next(encoded) for _ in text]
        if prefixes is not None and (marker := prefixes[number]) is not None:
            parts.insert(0, np.array([marker], dtype))
        if suffix is not None:
            parts.append(np.array([suffix], dtype))
        ids.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
    return ids


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most `LONGEST` characters; a text of no characters is one piece."""
    start = 0
    while len(text) - start > LONGEST:
        end = _end(text, start)
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def _end(text: str, start: int) -> int:
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, start + LONGEST // 2, start + LONGEST)
        if at >= 0:
            return at if mark == " " else at + len(mark)  # a space belongs to the word after it
    return start + LONGEST


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], dtype: DTypeLike) -> Iterator[AnyIds]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield from _arrays(tokenizer, held, dtype)
            held, size = [], 0
    yield from _arrays(tokenizer, held, dtype)


def _arrays(tokenizer: Tokenizer, texts: Sequence[str], dtype: DTypeLike) -> list[AnyIds]:
    # lists of ids take up to twenty times the memory of arrays, and `array` converts a list of
    # numbers three times faster than numpy
    encoded = tokenizer.encode_batch(texts)
    return [np.asarray(array("I", ids)).astype(dtype, copy=False) for ids in encoded]
