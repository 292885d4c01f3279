"""Texts to ids in batches, with a bound on how much goes to the tokenizer at once.

A tokenizer keeps several hundred bytes per token while it works, so that a single line of fifty
megabytes would take gigabytes. A long text is encoded in pieces, cut where a paragraph, a line or
a word ends; the ids decode to the very same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.tokenizers import Tokenizer

LONGEST = 200_000  # characters of a piece
AT_ONCE = 2_000_000  # characters given to the tokenizer together

Ids = NDArray[np.uint32]


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """The ids of each text, (tokens,) each."""
    cut = [list(pieces(text)) for text in texts]
    done = _encoded(tokenizer, [piece for text in cut for piece in text])
    return [_joined([next(done) for _ in text]) for text in cut]


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


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Ids]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield from _arrays(tokenizer, held)
            held, size = [], 0
    yield from _arrays(tokenizer, held)


def _arrays(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """As arrays at once: a list of ids takes ten times the room."""
    return [np.asarray(ids, dtype=np.uint32) for ids in tokenizer.encode_batch(texts)]


def _joined(parts: Sequence[Ids]) -> Ids:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
