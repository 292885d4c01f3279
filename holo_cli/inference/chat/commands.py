"""The chat's commands: one table, each with a Korean name, and nothing about terminals.

A line that begins with "/" is a command; "//..." is text that begins with a slash. A command
yields an `Outcome`: something to show, an answer that comes in pieces, or the end of the session.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from holo_cli.errors import UsageError, nearest
from holo_cli.inference.chat.session import ChatSession


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    message: str = ""
    pieces: Generator[str, None, None] | None = None  # an answer to be shown as it comes
    leave: bool = False


@dataclass(frozen=True)
class Command:
    """One row of the table."""

    name: str
    korean: str
    argument: str  # how it is written in the help; "" for none
    help: str
    run: Callable[[ChatSession, str], Outcome]


def parse_command(line: str) -> tuple[Command, str] | None:
    """The command of a line and the rest of the line; None when the line is text.

    Raises UsageError for a command that does not exist, with the nearest that does.
    """
    stripped = line.strip()
    if not stripped.startswith("/") or stripped.startswith("//"):
        return None
    word, _, argument = stripped[1:].partition(" ")
    found = BY_NAME.get(word.lower())
    if found is None:
        names = [c.name if word.isascii() else c.korean for c in COMMANDS]
        raise UsageError(
            f"There is no command '/{word}'.",
            next_step=f"{nearest(word.lower(), names)} Write //{word} for text.",
        )
    argument = argument.strip()
    if argument and not found.argument:
        raise UsageError(f"/{found.name} takes nothing after it.", next_step=f"Type /{found.name}.")
    return found, argument


def plain_text(line: str) -> str:
    """The text of a line that is no command: a doubled slash at its head is a single one."""
    head = line.lstrip()
    return head[1:] if head.startswith("//") else line


# -- handlers -------------------------------------------------------------------------------------


def _help(session: ChatSession, argument: str) -> Outcome:
    rows = [(f"/{c.name} {c.argument}".strip(), f"/{c.korean}", c.help) for c in COMMANDS]
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:<{width}}  {help}  ({korean})" for name, korean, help in rows]
    lines.append('"""opens and closes a text of several lines; // writes a text that begins with /')
    lines.append("Ctrl-C stops an answer, Ctrl-D leaves.")
    return Outcome("\n".join(lines))


def _clear(session: ChatSession, argument: str) -> Outcome:
    session.clear()
    return Outcome("The conversation is empty again.")


def _set(session: ChatSession, argument: str) -> Outcome:
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    if not name:
        return Outcome(_settings(session))
    session.set_option(name, value.strip())
    return Outcome(_settings(session))


def _show(session: ChatSession, argument: str) -> Outcome:
    header, loaded = session.loaded.header, session.loaded
    parameters = sum(p.numel() for p in loaded.model.parameters())
    limit = loaded.model.context_limit
    kind = "continues text" if session.only_continues else "was trained on conversations"
    dropped = session.statistics.dropped_turns
    turns = count(len(session.turns)) + (f", the oldest {dropped} left out" if dropped else "")
    lines = [
        f"model: {header.model}, {parameters:,} parameters, step {header.step:,}; {kind}",
        f"context: {session.context_used()} of {limit or 'unlimited'} tokens, {turns}",
        f"state: {session.state_bytes():,} bytes",
        f"system: {session.system or '(none)'}",
        f"language: {session.lang or '(found in each text)'}",
        _settings(session),
    ]
    return Outcome("\n".join(lines))


def _save(session: ChatSession, argument: str) -> Outcome:
    path = session.save(Path(_required(argument, "save", "FILE")))
    return Outcome(f"Saved to {path}.")


def _load(session: ChatSession, argument: str) -> Outcome:
    path = Path(_required(argument, "load", "FILE"))
    session.load(path)
    return Outcome(f"Loaded {path}: {count(len(session.turns))}.")


def _retry(session: ChatSession, argument: str) -> Outcome:
    return Outcome(pieces=session.retry())


def _system(session: ChatSession, argument: str) -> Outcome:
    if argument:
        session.set_system("" if argument == '""' else argument)
    return Outcome(f"system: {session.system or '(none)'}")


def _memory(session: ChatSession, argument: str) -> Outcome:
    word, _, name = argument.partition(" ")
    if word in ("save", "load"):
        path = Path(_required(name.strip(), f"memory {word}", "FILE"))
        if word == "save":
            return Outcome(f"Saved to {session.memory.save(path, session.turns)}.")
        texts = session.memory.load(path)
        note = "" if session.memory.saved.on else " /memory on makes answers draw on them."
        return Outcome(f"Loaded {texts} text{'' if texts == 1 else 's'} from {path}.{note}")
    if name or word not in ("", "on", "off", "clear"):
        raise UsageError(
            f"/memory does not know '{argument}'.",
            next_step="Type /memory alone, or with on, off, clear, save FILE or load FILE.",
        )
    if word == "clear":
        session.memory.clear(len(session.turns))
    elif word:
        session.memory.set_on(word == "on")
    return Outcome(_remembered(session))


def _remembered(session: ChatSession) -> str:
    """What is remembered where: the state, what is in sight, and the store beyond it."""
    model, saved = session.loaded.model, session.memory.saved
    limit, last = model.context_limit, session.memory.last
    sees = "all of it, fading" if limit is None else f"its last {limit} tokens"
    lines = [f"state: {session.state_bytes():,} bytes; the model sees {sees}"]
    if model.has_memory:
        lines[0] += "; its episodic memory is a part of that"
    lines.append(
        f"beyond that: {'on' if saved.on else 'off'}; {count(session.out_of_sight())} out of sight "
        f"and {len(saved.texts)} loaded {'text' if len(saved.texts) == 1 else 'texts'} "
        "can be recalled"
    )
    if last is not None:
        lines.append(f"last answer: recalled something for {last.opened} of {last.steps} tokens")
    return "\n".join(lines)


def _exit(session: ChatSession, argument: str) -> Outcome:
    return Outcome(leave=True)


def count(turns: int) -> str:
    """A number of turns in words: "1 turn", "3 turns"."""
    return f"{turns} turn{'' if turns == 1 else 's'}"


def _required(argument: str, command: str, what: str) -> str:
    if not argument:
        raise UsageError(f"/{command} needs a name.", next_step=f"Type /{command} {what}.")
    return argument


def _settings(session: ChatSession) -> str:
    values = session.sampling.as_dict()
    del values["num_samples"]
    return "settings: " + ", ".join(f"{k.replace('_', '-')} {v}" for k, v in values.items())


COMMANDS = (
    Command("help", "도움말", "", "this list", _help),
    Command("clear", "지우기", "", "forget the conversation", _clear),
    Command("set", "설정", "NAME VALUE", "change a setting: /set temperature 0.5", _set),
    Command("show", "보기", "", "the model, the context and the settings", _show),
    Command("save", "저장", "FILE", "write the conversation to a file", _save),
    Command("load", "불러오기", "FILE", "go on with a saved conversation", _load),
    Command("retry", "다시", "", "answer the last text again", _retry),
    Command("system", "시스템", "TEXT", 'a text before the first turn; "" removes it', _system),
    Command(
        "memory",
        "기억",
        "[WHAT]",
        "what is remembered; on, off, clear, save FILE, load FILE",
        _memory,
    ),
    Command("exit", "종료", "", "leave", _exit),
)
BY_NAME = {name: c for c in COMMANDS for name in (c.name, c.korean)}
