"""The chat commands in one table, each with an English and a Korean name.

A line that starts with "/" is a command; "//..." is text that starts with a slash. A command
returns a `CommandOutcome`: a message, an answer as an iterator of pieces, or the session's end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from holo_cli.errors import UsageError, nearest
from holo_cli.inference.chat.session import LANG, ChatSession
from holo_cli.printable import one_line
from holo_cli.translation import translate
from holo_cli.wording import counted


@dataclass(frozen=True)
class CommandOutcome:
    """The result of a command."""

    message: str = ""
    pieces: Generator[str, None, None] | None = None  # an answer, as it is decoded
    leave: bool = False


@dataclass(frozen=True)
class ChatCommand:
    """A row of the command table."""

    name: str
    korean: str
    argument: str  # as written in the help; "" for none
    help: str
    run: Callable[[ChatSession, str], CommandOutcome]


def parse_command(line: str) -> tuple[ChatCommand, str] | None:
    """The command of a line and its argument; None if the line is text.

    Raises UsageError for an unknown command, naming the nearest known one.
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
            next_step=f"{nearest(word.lower(), names)} To send it as text, type //{word}.",
        )
    argument = argument.strip()
    if argument and not found.argument:
        raise UsageError(f"/{found.name} takes no argument.", next_step=f"Type /{found.name}.")
    return found, argument


def plain_text(line: str) -> str:
    """The text of a line that is not a command: a leading // becomes a single slash."""
    head = line.lstrip()
    return head[1:] if head.startswith("//") else line


# -- handlers -------------------------------------------------------------------------------------


def _help(session: ChatSession, argument: str) -> CommandOutcome:
    rows = [
        (f"/{c.name} {c.argument}".strip(), f"/{c.korean}", translate(c.help)) for c in COMMANDS
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:<{width}}  {help}  ({korean})" for name, korean, help in rows]
    lines.append(
        translate(
            'Type """ before and after a text of several lines, // before one that starts with /.'
        )
    )
    lines.append(translate("Ctrl-C stops an answer. Ctrl-D ends the chat."))
    return CommandOutcome("\n".join(lines))


def _clear(session: ChatSession, argument: str) -> CommandOutcome:
    session.clear()
    return CommandOutcome("The conversation was cleared.")


def _set(session: ChatSession, argument: str) -> CommandOutcome:
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    if not name:
        return CommandOutcome(_settings(session))
    if not value.strip():
        return CommandOutcome(f"{name.replace('_', '-')} {session.option(name)}")
    session.set_option(name, value.strip())
    return CommandOutcome(_settings(session))


def _show(session: ChatSession, argument: str) -> CommandOutcome:
    header, loaded = session.loaded.header, session.loaded
    model = one_line(header.model)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    limit = loaded.model.context_limit
    kind = "base model" if session.only_continues else "chat model"
    turns, dropped = len(session.turns), session.statistics.dropped_turns
    used = session.context_used()
    lines = [
        f"model: {model}, {parameters:,} parameters, step {header.step:,} ({kind})",
        f"context: {used} of {counted(limit, 'token')}"
        if limit
        else f"context: {counted(used, 'token')} (unlimited)",
        f"turns: {turns}, of which {dropped} no longer fit in the context",
        f"state: {session.state_bytes():,} bytes",
        f"system: {one_line(session.system) or '(none)'}",
        _settings(session),
    ]
    return CommandOutcome("\n".join(lines))


def _save(session: ChatSession, argument: str) -> CommandOutcome:
    path = session.save(_required(argument, "save", "FILE"))
    return CommandOutcome(f"Saved to {path}.")


def _load(session: ChatSession, argument: str) -> CommandOutcome:
    path = session.load(_required(argument, "load", "FILE"))
    return CommandOutcome(f"Loaded {counted(len(session.turns), 'turn')} from {path}.")


def _retry(session: ChatSession, argument: str) -> CommandOutcome:
    return CommandOutcome(pieces=session.retry())


def _system(session: ChatSession, argument: str) -> CommandOutcome:
    if argument:
        session.set_system("" if argument == '""' else argument)
    return CommandOutcome(f"system: {one_line(session.system) or '(none)'}")


def _memory(session: ChatSession, argument: str) -> CommandOutcome:
    word, _, name = argument.partition(" ")
    if word in ("save", "load"):
        path = _required(name.strip(), f"memory {word}", "FILE")
        if word == "save":
            return CommandOutcome(f"Saved to {session.memory.save(path, session.turns)}.")
        texts = session.memory.load(path)
        message = f"Loaded {counted(texts, 'text')} from {path}."
        off = "" if session.memory.saved.on else "\nThe memory is off. Turn it on with: /memory on"
        return CommandOutcome(message + off)
    if name or word not in ("", "on", "off", "clear"):
        raise UsageError(
            f"/memory has no action '{argument}'.",
            next_step="Type /memory, or /memory with on, off, clear, save FILE or load FILE.",
        )
    if word == "clear":
        session.memory.clear(len(session.turns))
    elif word:
        session.memory.set_on(word == "on")
    return CommandOutcome(_memory_status(session))


def _memory_status(session: ChatSession) -> str:
    """The three places of memory: the decoding state, the context, and the kNN memory."""
    model, memory = session.loaded.model, session.memory
    limit, outside, texts = model.context_limit, session.turns_outside_context(), memory.saved.texts
    lines = [f"state: {session.state_bytes():,} bytes"]
    if model.has_memory:
        lines.append("The state includes the model's episodic memory.")
    if limit is None:
        lines.append("context: unlimited, older text fades")
    else:
        lines.append(f"context: the last {counted(limit, 'token')}")
    lines.append("memory: on" if memory.saved.on else "memory: off")
    lines.append(
        f"can be recalled: {counted(outside, 'turn')} outside the context, "
        f"{counted(len(texts), 'loaded text')}"
    )
    if model.can_recall:
        lines.append("The suffix memory proposes what followed the same words there.")
    if memory.last is not None:
        steps, mixed = memory.last.steps, memory.last.mixed_steps
        lines.append(f"last answer: the memory changed {mixed} of {counted(steps, 'token')}")
    return "\n".join(lines)


def _exit(session: ChatSession, argument: str) -> CommandOutcome:
    return CommandOutcome(leave=True)


def _required(argument: str, command: str, what: str) -> str:
    if not argument:
        raise UsageError(f"/{command} needs a file name.", next_step=f"Type /{command} {what}.")
    return argument


def _settings(session: ChatSession) -> str:
    values = session.sampling.as_dict()
    del values["num_samples"]
    values["span_penalty"] = session.sampling.span_penalty_applied
    if values["seed"] is None:
        values["seed"] = translate("(a new one each time)")
    values["stop"] = values["stop"] or translate("(none)")
    settings = ", ".join(f"{k.replace('_', '-')} {v}" for k, v in values.items())
    return "\n".join([f"language: {session.option(LANG)}", f"settings: {settings}"])


COMMANDS = (
    ChatCommand("help", "도움말", "", "list the commands", _help),
    ChatCommand("clear", "지우기", "", "remove all turns", _clear),
    ChatCommand("set", "설정", "NAME VALUE", "change a setting: /set temperature 0.5", _set),
    ChatCommand("show", "보기", "", "show the model, the context and the settings", _show),
    ChatCommand("save", "저장", "FILE", "save the conversation to a file", _save),
    ChatCommand("load", "불러오기", "FILE", "continue a saved conversation", _load),
    ChatCommand("retry", "다시", "", "generate the last answer again", _retry),
    ChatCommand(
        "system", "시스템", "TEXT", 'set the text before the first turn; "" removes it', _system
    ),
    ChatCommand(
        "memory",
        "기억",
        "[ACTION]",
        "show the memory, or: on, off, clear, save FILE, load FILE",
        _memory,
    ),
    ChatCommand("exit", "종료", "", "end the chat", _exit),
)
BY_NAME = {name: c for c in COMMANDS for name in (c.name, c.korean)}
