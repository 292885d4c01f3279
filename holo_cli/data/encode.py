"""Texts to ids in batches, with a bound on how much goes to the tokenizer at once.

A tokenizer keeps several hundred bytes per token while it works, so that a single line of fifty
megabytes would take gigabytes. A long text is encoded in pieces, cut where a paragraph, a line or
a word ends; the ids decode to the very same text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from holo_cli.data.tokenizers import Tokenizer

LONGEST = 200_000  # characters of a piece
AT_ONCE = 1_000_000  # characters given to the tokenizer together

Ids = NDArray[Any]
"""The ids of a text, (tokens,)."""


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    dtype: DTypeLike = np.uint32,
    opens: Sequence[int | None] | None = None,
    closes: int | None = None,
) -> list[Ids]:
    """The ids of each text. `opens`: the id before each, if any; `closes`: the one after them."""
    cut = [list(pieces(text)) for text in texts]
    done = _encoded(tokenizer, [piece for text in cut for piece in text], dtype)
    ids: list[Ids] = []
    for number, text in enumerate(cut):
        parts = [next(done) for _ in text]
        if opens is not None and (marker := opens[number]) is not None:
            parts.insert(0, np.array([marker], dtype))
        if closes is not None:
            parts.append(np.array([closes], dtype))
        ids.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
    return ids


def pieces(text: str) -> Iterator[str]:
    """Stretches of at most `LONGEST` characters that make up the text."""
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


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], dtype: DTypeLike) -> Iterator[Ids]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield from _arrays(tokenizer, held, dtype)
            held, size = [], 0
    yield from _arrays(tokenizer, held, dtype)


def _arrays(tokenizer: Tokenizer, texts: Sequence[str], dtype: DTypeLike) -> list[Ids]:
    """As arrays at once: a list of ids takes up to twenty times the room.

    By way of `array`, which reads a list of numbers in a third of the time that numpy does.
    """
    encoded = tokenizer.encode_batch(texts)
    return [np.asarray(array("I", ids)).astype(dtype, copy=False) for ids in encoded]
