"""The corpus that `holo eval` scores: documents of a prepared set, or given texts, as one stream.

Documents follow each other as in training: language marker (if the checkpoint has any), text, end
token. Markers and end tokens count as no bytes and no words. Legend: D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.answers import AnswerIndex, token_sizes
from holo_cli.data.dataset import PreparedData
from holo_cli.data.language import detect
from holo_cli.data.normalize import to_nfc
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.windows import IGNORE, DocumentSubset, TokenStream
from holo_cli.errors import DataError, nearest
from holo_cli.inference.generation.loaded_model import LoadedModel

Ints = NDArray[np.int64]


def wikitext_words(text: str) -> int:
    """Words as WikiText perplexities count them: each line end counts as a word.

    >>> wikitext_words("a b\\n\\nc"), wikitext_words("a b\\n")
    (6, 3)
    """
    lines = text.count("\n") + (not text.endswith("\n"))
    return len(text.split()) + lines


@dataclass(frozen=True)
class Texts:
    """Documents concatenated into a token stream. Arrays are (D,)."""

    stream: TokenStream | DocumentSubset
    ends: Ints  # position after each document in the stream
    bytes: Ints
    words: Ints
    languages: NDArray[np.str_]
    first: int  # the token before the stream
    answers: Ints | None = None  # of each document, the tokens that are scored; None: all of them

    @property
    def tokens(self) -> Ints:
        """The tokens that are scored; of a conversation, those of the answers."""
        return np.diff(self.ends, prepend=0) if self.answers is None else self.answers


def prepared_texts(
    loaded: LoadedModel,
    data: PreparedData,
    split: str = "val",
    *,
    lang: str | None = None,
    max_docs: int | None = None,
) -> tuple[Texts, bool]:
    """A split of a prepared set, or its documents in one language, and whether it was tokenized
    again with the checkpoint's tokenizer because the set was prepared with another one.

    Raises DataError if no document is in that language.
    """
    records = np.concatenate([np.asarray(r) for r in data.records(split)])
    languages = np.char.decode(records["language"], "utf-8")
    tokens, starts = _documents(data, split)
    chosen = np.arange(len(records))
    if lang is not None:
        chosen = np.flatnonzero(languages == lang)
        if not len(chosen):
            known = sorted(code for code in set(languages.tolist()) if code)
            raise DataError(
                f"The {split} split of {data.path} has no documents in the language '{lang}'.",
                next_step=nearest(lang, known) or "The set has no languages. Omit --lang.",
            )
    chosen = chosen[:max_docs]
    stream = data.stream(split)
    if data.tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        ids = [stream.read(int(starts[i]), int(tokens[i])).tolist() for i in chosen]
        if data.chat is not None:
            return _conversations_again(loaded, data, ids, languages[chosen].tolist()), True
        texts = [data.tokenizer.decode(one) for one in ids]
        return given_texts(loaded, texts, languages=languages[chosen].tolist()), True
    own = DocumentSubset(stream, starts[chosen], tokens[chosen])
    if data.chat is not None:
        whole = stream if len(chosen) == len(records) else own
        return _answers(whole, np.cumsum(tokens[chosen]), languages[chosen], data.tokenizer), False
    return (
        Texts(
            stream if len(chosen) == len(records) else own,
            np.cumsum(tokens[chosen]),
            records["bytes"][chosen].astype(np.int64),
            _words(data.tokenizer, own, records[chosen]),
            languages[chosen],
            data.tokenizer.end,
        ),
        False,
    )


def _conversations_again(
    loaded: LoadedModel, data: PreparedData, documents: Sequence[list[int]], languages: list[str]
) -> Texts:
    """The documents of a set with conversations, encoded as the checkpoint was trained. Raises
    DataError where it has no chat format."""
    tokenizer, marks = loaded.tokenizer, loaded.prompts.chat
    assert data.chat is not None
    if marks is None:
        raise DataError(
            f"{data.shown} has conversations, and this checkpoint was trained on none and has "
            "another tokenizer.",
            next_step="Evaluate it on plain text, or a checkpoint that was trained on "
            "conversations.",
        )
    decode, known = data.tokenizer.decode, loaded.prompts.languages
    found: list[NDArray[Any]] = []
    for ids, code in zip(documents, languages, strict=True):
        parts = [(role, tokenizer.encode(decode(own))) for role, own in data.chat.split(ids)]
        text = marks.join(parts) if parts else tokenizer.encode(decode(ids))
        marker = tokenizer.marker(code) if code in known else None
        start = [] if marker is None else [marker]
        found.append(np.asarray([*start, *text, tokenizer.end], dtype=np.int64))
    stream = TokenStream(found, AnswerIndex(found, marks).scored)
    ends = np.cumsum([len(one) for one in found])
    return _answers(stream, ends, np.asarray(languages, dtype=np.str_), tokenizer)


def _answers(
    stream: TokenStream | DocumentSubset,
    ends: Ints,
    languages: NDArray[np.str_],
    tokenizer: Tokenizer,
) -> Texts:
    """Documents of which only what is learnt is scored, with its bytes and words."""
    sizes = token_sizes(tokenizer)
    counts: list[tuple[int, int, int]] = []
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        ids = stream.read(start, end - start)
        targets = ids.copy()
        stream.mask(start, targets)
        # answers are counted one by one: words of two of them do not join
        runs = np.split(targets, np.flatnonzero(np.diff(targets == IGNORE)) + 1)
        spoken = [tokenizer.decode(run.tolist()) for run in runs if run[0] != IGNORE]
        learnt = targets[targets != IGNORE]
        words = sum(wikitext_words(text) for text in spoken)
        counts.append((len(learnt), int(sizes[learnt].sum()), words))
    tokens, size, words_of = (np.asarray(column) for column in zip(*counts, strict=True))
    return Texts(stream, ends, size, words_of, languages, tokenizer.end, tokens)


def given_texts(
    loaded: LoadedModel,
    texts: Sequence[str],
    *,
    lang: str | None = None,
    languages: Sequence[str] = (),
) -> Texts:
    """Each text as a document, encoded as `holo prepare` would.

    `lang` is the language of all texts, `languages` that of each; otherwise it is detected. Bytes
    and words exclude characters that the tokenizer lacks. Raises DataError if there is no text,
    UsageError for a language that the checkpoint has no marker for.
    """
    named: Sequence[str | None] = languages or [lang] * len(texts)
    pairs = [(to_nfc(text), code) for text, code in zip(texts, named, strict=True) if text]
    if not any(text.strip() for text, _ in pairs):
        raise DataError("There is no text to score.", next_step="Give a file that is not empty.")
    known = loaded.prompts.languages
    ids: list[list[int]] = []
    found: list[str] = []
    known_text: list[str] = []
    sizes: list[int] = []  # UTF-8 bytes
    for text, code in pairs:
        language = lang or (detect(text) if code is None else code)
        asked = language if language in known or lang is not None else None
        marked = loaded.prompts.language(text, asked)
        marker = None if marked is None else loaded.tokenizer.marker(marked)
        start = [] if marker is None else [marker]
        encoded = loaded.tokenizer.encode(text)
        ids.append([*start, *encoded, loaded.tokenizer.end])
        found.append(language)
        known_text.append(_known_part(loaded.tokenizer, text))
        sizes.append(loaded.tokenizer.text_bytes(known_text[-1], encoded))
    return Texts(
        TokenStream([np.asarray(document, dtype=np.int64) for document in ids]),
        np.cumsum([len(document) for document in ids]),
        np.asarray(sizes),
        np.asarray([wikitext_words(text) for text in known_text]),
        np.asarray(found, dtype=np.str_),
        loaded.tokenizer.end,
    )


def _known_part(tokenizer: Tokenizer, text: str) -> str:
    unknown = tokenizer.unknown(text)
    return text.translate({ord(c): None for c in unknown}) if unknown else text


def _documents(data: PreparedData, split: str) -> tuple[Ints, Ints]:
    """Tokens of each document, and its start in the split's stream."""
    tokens = np.concatenate(
        [np.diff(ends.astype(np.int64), prepend=0) for ends in data.document_ends(split)]
    )
    return tokens, np.cumsum(tokens) - tokens


def _words(tokenizer: Tokenizer, stream: DocumentSubset, records: NDArray[Any]) -> Ints:
    """Words of each document, line ends included. Documents of a set without word counts are
    decoded and counted."""
    spans = zip([0, *stream.ends[:-1].tolist()], stream.ends.tolist(), strict=True)
    counted = "words" in (records.dtype.names or ()) and records["words"].any()
    if not counted:
        return np.asarray(
            [wikitext_words(tokenizer.decode(stream.read(a, b - a).tolist())) for a, b in spans]
        )
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    newlines = np.asarray([piece.count(b"\n") for piece in pieces])
    silent = np.asarray([not piece for piece in pieces])
    closing = np.asarray([piece.endswith(b"\n") for piece in pieces])
    lines = []
    for a, b in spans:
        ids = stream.read(a, b - a)
        ids = ids[~silent[ids]]
        lines.append(int(newlines[ids].sum()) + (not len(ids) or not closing[ids[-1]]))
    return records["words"].astype(np.int64) + np.asarray(lines)
