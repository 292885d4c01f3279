"""A conversation as a value: its turns, how they become token ids, and how they are kept on disk.

The models here are trained on plain text, not on conversations, so a turn has no roles and no
special tokens: the model goes on writing from what the person typed, and a line end joins what
comes next. In token ids:

    start system \\n  user answer \\n user answer \\n user          (the model writes from here)

`start` is how documents begin in the training data (see prompt.py). Where the language changes
between two turns, a new start with the new language's marker stands in place of the line end, as
it does between two documents. Every text is encoded once and ids are joined, never texts, so the
ids of a longer conversation begin with those of the shorter one and decoding state can be kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli.errors import HoloError
from holo_cli.files import atomic_write_json
from holo_cli.inference.generation.prompt import PromptFormat

FORMAT = 1
MARK = "holo_conversation"  # the key that says a JSON file is one, and its format


@dataclass(frozen=True)
class Turn:
    """What a person wrote and what the model wrote on from it."""

    user: str
    answer: str = ""
    finish: str = ""  # "end", "length", "stop", "stopped"; "" while it has no answer
    language: str | None = None
    user_ids: tuple[int, ...] = field(default=(), repr=False)
    answer_ids: tuple[int, ...] = field(default=(), repr=False)


def encode_turns(form: PromptFormat, system: str, turns: Sequence[Turn]) -> list[int]:
    """The ids of a conversation, at least one: the template at the head of this file."""
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


def save_conversation(
    path: Path, system: str, lang: str | None, turns: Sequence[Turn], about: dict[str, Any]
) -> None:
    """Writes a conversation as JSON, whole or not at all. An existing file is only replaced when
    it holds a conversation. Raises HoloError when it cannot be written."""
    if path.exists() and path.stat().st_size:
        try:
            read_json(path)
        except HoloError as error:
            raise HoloError(
                f"{path} exists and holds no conversation; it was left alone.",
                next_step="Choose another name.",
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
            next_step="Choose another place.",
        ) from error


def load_conversation(path: Path) -> tuple[str, str | None, list[Turn]]:
    """(system, lang, turns without ids) from a file. Raises HoloError when it is none."""
    content = read_json(path)
    system, lang, turns = content.get("system"), content.get("lang"), content.get("turns")
    if not isinstance(system, str) or not (lang is None or isinstance(lang, str)):
        raise damaged(path, "its system text or language is not text")
    if not isinstance(turns, list):
        raise damaged(path, "it has no list of turns")
    loaded = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise damaged(path, f"turn {number} is not an object")
        texts = {name: turn.get(name, "") for name in ("user", "answer", "finish")}
        if not all(isinstance(text, str) for text in texts.values()) or not texts["user"]:
            raise damaged(path, f"turn {number} lacks the text of the person or of the answer")
        loaded.append(Turn(**texts))
    return system, lang, loaded


def read_json(path: Path) -> dict[str, Any]:
    """A conversation file as an object of this format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HoloError(
            f"There is no conversation at {path}.", next_step="Check the name; /save writes one."
        ) from error
    except OSError as error:
        raise HoloError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, "it is not JSON in UTF-8") from error
    if not isinstance(content, dict) or not isinstance(content.get(MARK), int):
        raise damaged(path, f"it lacks the key '{MARK}'")
    if content[MARK] > FORMAT:
        raise HoloError(
            f"{path} was written by a newer holo (conversation format {content[MARK]}).",
            next_step="Update holo: pip install --upgrade holo-cli",
        )
    return content


def damaged(path: Path, what: str) -> HoloError:
    """The error for a file that cannot be a conversation."""
    return HoloError(
        f"{path} is not a conversation saved by /save: {what}.", next_step="Load another file."
    )
