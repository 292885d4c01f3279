"""Encodes a prompt the way documents begin in the data that the model was trained on.

    with language markers          <|end|> <|ko|> text
    many documents, no markers     <|end|> text
    one long text                  text
    conversations                  chat/conversation.py

so that the model starts at the beginning of a document, in the right language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holo_cli.data.chat_format import ChatMarks
from holo_cli.data.language import HANGUL_SHARE, detect, hangul_share
from holo_cli.data.normalize import to_nfc
from holo_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from holo_cli.checkpoint.header import ChatFormat, DataInfo
    from holo_cli.data.tokenizers import Tokenizer

MANY_DOCUMENTS = 32  # with fewer, a model has not learned what an end token means
MARKER = re.compile(r"<\|([a-z]{2,3})\|>")  # ISO 639 codes; other special tokens have longer names
ENOUGH_LETTERS = 20  # with fewer, assuming English is better than detection


@dataclass(frozen=True)
class PromptFormat:
    """The tokenizer and the facts about the training data that a prompt's encoding depends on."""

    tokenizer: Tokenizer
    languages: tuple[str, ...] = ()  # with a marker token
    data_languages: tuple[str, ...] = ()  # of the training data, with or without a marker
    documents: int = 0
    chat: ChatMarks | None = None  # of a model that was trained on conversations

    @classmethod
    def of(cls, tokenizer: Tokenizer, data: DataInfo) -> PromptFormat:
        """From a checkpoint's tokenizer and its header's entry about the training data."""
        counts = data.documents
        documents = sum(counts.values()) if isinstance(counts, dict) else counts
        marked = marked_languages(tokenizer) if data.markers else ()
        languages = tuple(sorted(code for code in data.languages if code))  # "" means unknown
        chat = None if data.chat is None else chat_marks(tokenizer, data.chat)
        return cls(tokenizer, marked, languages, documents, chat)

    def language(self, text: str, lang: str | None = None) -> str | None:
        """The language whose marker `text` gets: `lang`, or the detected one; None without markers.

        Raises UsageError for a `lang` that the checkpoint was not trained on.
        """
        known = self.languages or self.data_languages
        if lang is not None and known and lang not in known:
            raise UsageError(
                f"This checkpoint was not trained on the language '{lang}' (--lang).",
                next_step=nearest(lang, known),
            )
        if not self.languages:
            return None
        return lang or guess_language(text, self.languages)

    def start(self, language: str | None) -> list[int]:
        """The ids before the first text of a document."""
        marker = None if language is None else self.tokenizer.marker(language)
        if marker is not None:
            return [self.tokenizer.end, marker]
        return [self.tokenizer.end] if self.documents >= MANY_DOCUMENTS else []

    def encode(self, text: str, lang: str | None = None) -> list[int]:
        """The ids of a whole prompt, brought to the form of training text, at least one."""
        text = to_nfc(text)
        return self.at_least_one(
            self.start(self.language(text, lang)) + self.tokenizer.encode(text)
        )

    def at_least_one(self, ids: list[int]) -> list[int]:
        """`ids`, or a newline if there are none, because a model cannot continue an empty
        prompt."""
        return ids or self.separator() or [first_plain_id(self.tokenizer)]

    def separator(self) -> list[int]:
        """The ids between two texts of one document: a newline, or a space or nothing if the
        vocabulary lacks it."""
        encoded = ((text, self.tokenizer.encode(text)) for text in ("\n", " "))
        return next((ids for text, ids in encoded if self.tokenizer.decode(ids) == text), [])


def chat_marks(tokenizer: Tokenizer, form: ChatFormat) -> ChatMarks:
    """The ids of the marks that a checkpoint's header names; the header was checked to fit."""
    names = (form.system, form.user, form.assistant, form.end)
    return ChatMarks(*(tokenizer.specials[name] for name in names))


def marked_languages(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The languages that have a marker among the special tokens: `<|ko|>` -> `ko`."""
    found = (MARKER.fullmatch(name) for name, i in tokenizer.specials.items() if i != tokenizer.end)
    return tuple(sorted(match[1] for match in found if match))


def guess_language(text: str, known: Iterable[str]) -> str:
    """The language of a prompt among `known`: Korean by its script, others by detection.

    Detection is unreliable for a few words, so a short text that is not Korean counts as English if
    English is known.
    """
    languages = tuple(sorted(known))
    korean = "ko" in languages and hangul_share(text) >= HANGUL_SHARE
    if not korean and "en" in languages and sum(map(str.isalpha, text)) < ENOUGH_LETTERS:
        return "en"
    return detect(text, among=languages)


def first_plain_id(tokenizer: Tokenizer) -> int:
    """The smallest id that is an ordinary token."""
    special = set(tokenizer.specials.values())
    return next(i for i in range(tokenizer.vocab_size) if i not in special)


def span_breakers(tokenizer: Tokenizer) -> list[int]:
    """Ids at which a repeated span ends for `--span-penalty`: special tokens and line ends."""
    return [
        token
        for token in range(tokenizer.vocab_size)
        if b"\n" in (piece := tokenizer.token_bytes(token)) or not piece
    ]
