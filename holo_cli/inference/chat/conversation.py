"""A conversation: its turns, their encoding as token ids, and its file format.

A base model, trained on plain text, knows no roles and no special tokens: it continues the user's
text, and a newline separates turns. A model that was trained on conversations has the chat format
of its checkpoint's header (data/chat_format.py). In token ids:

    start system \\n  user answer \\n user answer \\n user          (the model continues here)
    start <|system|> system <|user|> user <|assistant|> answer <|end|> <|user|> user <|assistant|>

`start` is how documents begin in the training data (see prompt.py). Where the language changes
between two turns, a new start with the new language's marker replaces the newline, as between two
documents. Every text is encoded once, and ids are concatenated rather than texts, so the ids of a
longer conversation start with those of the shorter one and the decoding state can be reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holo_cli import parsing
from holo_cli.data.chat_format import ChatMarks
from holo_cli.data.normalize import to_nfc
from holo_cli.errors import HoloError
from holo_cli.files import atomic_write_json
from holo_cli.inference.generation.prompt import PromptFormat

FORMAT = 1
MARK = "holo_conversation"  # the key of the format version; marks a JSON file as a conversation


class ConversationFileError(HoloError):
    """A file is not what /save writes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, next_step="Load a file that /save wrote.")


@dataclass(frozen=True)
class Turn:
    """A user text and the model's continuation of it."""

    user: str
    answer: str = ""
    finish: str = ""  # "end", "length", "stop", "stopped"; "" without an answer
    language: str | None = None
    user_ids: tuple[int, ...] = field(default=(), repr=False)
    answer_ids: tuple[int, ...] = field(default=(), repr=False)


def encode_turn(form: PromptFormat, turn: Turn, previous: str | None, lang: str | None) -> Turn:
    """A turn with its language and the ids of its texts; `previous` is the language before it.

    `lang` None detects the language. Raises UsageError for one that the checkpoint does not know.
    """
    turn = replace(turn, user=to_nfc(turn.user), answer=to_nfc(turn.answer))
    language = form.language(turn.user, lang)
    # A text without letters ("1 + 1?") has the language of the previous turn.
    if lang is None and previous and not any(c.isalpha() for c in turn.user):
        language = previous
    encode = form.tokenizer.encode
    return replace(
        turn,
        language=language,
        user_ids=tuple(encode(turn.user)),
        answer_ids=tuple(encode(turn.answer)),
    )


def encode_turns(form: PromptFormat, system: str, turns: Sequence[Turn]) -> list[int]:
    """The ids of a conversation, at least one, in the format described in the module docstring."""
    if form.chat is not None:
        return _in_chat_format(form, form.chat, system, turns)
    ids: list[int] = []
    language: str | None = None
    for number, turn in enumerate(turns):
        if number == 0 or turn.language != language:
            begin = form.start(turn.language)
            ids += begin or (form.separator() if number else [])
            if number == 0 and system:
                ids += form.tokenizer.encode(system) + form.separator()
        else:
            ids += form.separator()
        ids += [*turn.user_ids, *turn.answer_ids]
        language = turn.language
    return form.at_least_one(ids)


def _in_chat_format(
    form: PromptFormat, marks: ChatMarks, system: str, turns: Sequence[Turn]
) -> list[int]:
    ids: list[int] = []
    language: str | None = None
    for number, turn in enumerate(turns):
        if number:
            ids.append(marks.end)
        if number == 0 or turn.language != language:
            # the `end` of the last answer is also the one before a new conversation
            ids += (form.start(turn.language) or [marks.end])[min(number, 1) :]
        if number == 0 and system:
            ids += [marks.system, *form.tokenizer.encode(system)]
        if turn.user:  # a client's conversation may begin with an answer
            ids += [marks.user, *turn.user_ids]
        ids += [marks.assistant, *turn.answer_ids]
        language = turn.language
    return ids or [marks.end]


def save_conversation(
    path: Path, system: str, lang: str | None, turns: Sequence[Turn], about: dict[str, Any]
) -> None:
    """Writes a conversation as JSON atomically. Only an existing conversation file is overwritten.
    Raises HoloError if it cannot be written."""
    if path.exists() and path.stat().st_size:
        try:
            read_conversation_file(path)
        except HoloError as error:
            raise HoloError(
                f"{path} exists and is not a conversation file, so it was not overwritten.",
                next_step="Choose another file name.",
            ) from error
    texts = [
        {"user": t.user, "answer": t.answer, "finish": t.finish, "language": t.language}
        for t in turns
    ]
    content = {MARK: FORMAT, **about, "system": system, "lang": lang, "turns": texts}
    try:
        atomic_write_json(path, content)
    except OSError as error:
        raise HoloError(
            f"The conversation could not be written to {path}: {error.strerror or error}.",
            next_step="Choose another folder.",
        ) from error


def load_conversation(path: Path) -> tuple[str, str | None, list[Turn]]:
    """(system, lang, turns without ids) from a file. Raises HoloError if it is not a
    conversation."""
    content = read_conversation_file(path)
    system, lang, turns = content.get("system"), content.get("lang"), content.get("turns")
    if not isinstance(system, str) or not (lang is None or isinstance(lang, str)):
        raise ConversationFileError(
            f"{path} is not a conversation file: its system text or language is not a text."
        )
    if not isinstance(turns, list):
        raise ConversationFileError(
            f"{path} is not a conversation file: it contains no list of turns."
        )
    loaded = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise ConversationFileError(
                f"{path} is not a conversation file: turn {number} is not an object."
            )
        texts = {name: turn.get(name, "") for name in ("user", "answer", "finish")}
        if not all(isinstance(text, str) for text in texts.values()) or not texts["user"]:
            raise ConversationFileError(
                f"{path} is not a conversation file: turn {number} lacks the text of the user or "
                "of the answer."
            )
        loaded.append(Turn(**texts))
    return system, lang, loaded


def read_conversation_file(path: Path) -> dict[str, Any]:
    """The content of a conversation file. Raises HoloError if it is missing, unreadable or of
    another kind."""
    try:
        content = parsing.read_json(path)
    except FileNotFoundError as error:
        raise HoloError(
            f"There is no conversation file {path}.",
            next_step="Check the name. /save FILE writes a conversation file.",
        ) from error
    except OSError as error:
        raise HoloError(f"{path} cannot be read: {error.strerror or error}.") from error
    except parsing.ParseError as error:
        raise ConversationFileError(
            f"{path} is not a conversation file: it is not JSON in UTF-8."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get(MARK), int):
        raise ConversationFileError(
            f"{path} is not a conversation file: it lacks the key '{MARK}'."
        )
    if content[MARK] > FORMAT:
        raise HoloError(
            f"{path} was written by a newer version of holo (conversation format {content[MARK]}).",
            next_step="Update holo: pip install --upgrade holo-cli",
        )
    return content
