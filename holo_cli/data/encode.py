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

from holo_cli.data.chat_format import ChatMarks
from holo_cli.data.document import Document, utf8_length
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


def encode_documents(
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    dtype: DTypeLike = np.uint32,
    prefixes: Sequence[int | None] | None = None,
) -> list[AnyIds]:
    """The ids of each document, after its id in `prefixes`, up to its end token. A conversation is
    encoded in the chat format."""
    if not any(document.messages for document in documents):
        texts = [document.text for document in documents]
        return encode(tokenizer, texts, dtype=dtype, prefixes=prefixes, suffix=tokenizer.end)
    marks = ChatMarks.of(tokenizer.specials)
    assert marks is not None, "a set with conversations has the marks"
    said = [[one.text for one in document.messages] or [document.text] for document in documents]
    encoded = iter(encode(tokenizer, [text for texts in said for text in texts], dtype=dtype))
    found: list[AnyIds] = []
    for number, document in enumerate(documents):
        if document.messages:
            parts = [(one.role, next(encoded).tolist()) for one in document.messages]
            ids = np.asarray([*marks.join(parts), tokenizer.end], dtype)
        else:
            ids = np.concatenate([next(encoded), np.array([tokenizer.end], dtype)])
        if prefixes is not None and (marker := prefixes[number]) is not None:
            ids = np.concatenate([np.array([marker], dtype), ids])
        found.append(ids)
    return found


def text_size(tokenizer: Tokenizer, document: Document, ids: AnyIds) -> int:
    """UTF-8 bytes of the text that `ids`, the encoded document, stand for."""
    if not document.messages:
        return tokenizer.text_bytes(document.text, ids)
    marks = ChatMarks.of(tokenizer.specials)
    assert marks is not None
    parts = marks.split(ids.tolist())
    return sum(
        tokenizer.text_bytes(one.text, own)
        for one, (_, own) in zip(document.messages, parts, strict=True)
    )


def spoken_size(document: Document) -> int:
    """UTF-8 bytes of the messages of a conversation."""
    return sum(utf8_length(one.text) for one in document.messages)


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
