"""The chat format: how a conversation becomes token ids, and which of them a model learns.

    <|ko|> <|system|> text <|user|> text <|assistant|> answer <|end|> <|user|> ... answer <|end|>

A mark stands before each text, `<|end|>` after each answer; the language marker only where a set
has markers, the system text only where there is one. The marks are special tokens, which no text
contains and no model writes, except `<|end|>`: with it a model ends its answer, as it ends a story.

Loss is computed on the answers and their `<|end|>` alone. The ids of a document say where they are,
so that nothing else has to be stored: see `answers.py`. Documents without marks are learnt whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

END = "<|end|>"
SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")
ALIASES = {"developer": SYSTEM}
TEXT_PARTS = ("text", "input_text", "output_text")

BAD_LINES, UNKNOWN_ROLES = "bad lines", "conversations with an unknown role"
NO_TEXT, NO_ANSWER = "conversations with an empty message", "conversations without an answer"
"""The rules by which rows are dropped, as they are counted."""


class Utterance(NamedTuple):
    """One text of a conversation and who said it, one of ROLES."""

    role: str
    text: str


class NoConversationError(ValueError):
    """A row is no conversation to learn from; `rule` is why, `detail` what is wrong in it."""

    def __init__(self, detail: str, rule: str) -> None:
        super().__init__(detail)
        self.rule, self.detail = rule, detail


def mark_name(role: str) -> str:
    """The special token before a text of a role: "user" -> "<|user|>"."""
    return f"<|{role}|>"


MARK_NAMES = tuple(mark_name(role) for role in ROLES)


# -- from rows to conversations --------------------------------------------------------------------


def read_messages(value: Any, field: str = "messages") -> tuple[Utterance, ...]:
    """The conversation in a `field` of a row, in the form of OpenAI. Raises NoConversationError."""
    if not isinstance(value, list):
        raise NoConversationError(f"it has no list '{field}'", BAD_LINES)
    said: list[Utterance] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise NoConversationError(f"message {number} is not an object", BAD_LINES)
        role = message.get("role")
        role = ALIASES.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            raise NoConversationError(
                f"the role of message {number} is not one of {', '.join(ROLES)}", UNKNOWN_ROLES
            )
        text = _content(message.get("content"))
        if text is None:
            raise NoConversationError(f"the content of message {number} is no text", BAD_LINES)
        if not text.strip():
            raise NoConversationError(f"message {number} is empty", NO_TEXT)
        said.append(Utterance(role, text))
    return arranged(said)


def _content(value: Any) -> str | None:
    """The text of a message: a string, or a list of parts of text; None for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return None
    texts = [
        part.get("text")
        for part in value
        if isinstance(part, dict) and part.get("type") in TEXT_PARTS
    ]
    if len(texts) < len(value) or not all(isinstance(text, str) for text in texts):
        return None
    return "\n".join(str(text) for text in texts)


def arranged(said: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """A conversation as it is learnt: the system texts first, as one; texts of one role that follow
    each other as one; nothing after the last answer. Raises NoConversationError where none is."""
    system = "\n".join(one.text for one in said if one.role == SYSTEM)
    found: list[Utterance] = [Utterance(SYSTEM, system)] if system else []
    for role, text in said:
        if role == SYSTEM:
            continue
        if found and found[-1].role == role:
            found[-1] = Utterance(role, f"{found[-1].text}\n{text}")
        else:
            found.append(Utterance(role, text))
    while found and found[-1].role != ASSISTANT:
        found.pop()
    if not found:
        raise NoConversationError("no message is the assistant's", NO_ANSWER)
    return tuple(found)


# -- from conversations to ids, and back ----------------------------------------------------------


@dataclass(frozen=True)
class ChatMarks:
    """The ids of the marks in a tokenizer."""

    system: int
    user: int
    assistant: int
    end: int

    @classmethod
    def of(cls, specials: Mapping[str, int]) -> ChatMarks | None:
        """Those among the special tokens of a tokenizer; None if one is missing."""
        names = (*MARK_NAMES, END)
        return cls(*(specials[name] for name in names)) if specials.keys() >= set(names) else None

    @property
    def roles(self) -> dict[int, str]:
        """The role of each mark."""
        return {self.system: SYSTEM, self.user: USER, self.assistant: ASSISTANT}

    def before(self, role: str) -> int:
        """The mark before a text of a role."""
        return {name: mark for mark, name in self.roles.items()}[role]

    def join(self, parts: Sequence[tuple[str, Sequence[int]]]) -> list[int]:
        """The ids of a conversation from the role and the ids of each text; the `end` of the last
        answer is left out, since it is that of the document."""
        ids: list[int] = []
        for number, (role, encoded) in enumerate(parts):
            ids += [self.before(role), *encoded]
            if role == ASSISTANT and number < len(parts) - 1:
                ids.append(self.end)
        return ids

    def split(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """The inverse of `join`: role and ids of each text; [] for a document without marks."""
        parts: list[tuple[str, list[int]]] = []
        roles = self.roles
        for token in ids:
            if token in roles:
                parts.append((roles[token], []))
            elif parts and token != self.end:
                parts[-1][1].append(int(token))
        return parts
