"""The terminal side of a conversation: reads lines, writes the pieces of answers.

On a terminal it uses a line editor with history (prompt_toolkit in line mode, so the terminal's
input method composes Korean); otherwise it reads plain lines of standard input. Answers go to
stdout as they are decoded, everything else to stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TextIO

from holo_cli.data.normalize import to_nfc
from holo_cli.errors import HoloError
from holo_cli.inference.chat.commands import COMMANDS, parse_command, plain_text
from holo_cli.inference.chat.screen import AnswerWriter, ReaderGone, typing_hidden
from holo_cli.inference.chat.session import ChatSession
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.paths import chat_history
from holo_cli.printable import message, one_line, printable
from holo_cli.translation import translate
from holo_cli.wording import counted

PROMPT = "> "
MORE = "... "
QUOTES = '"""'
_SURROGATES = re.compile(r"[\ud800-\udfff]")  # typed bytes that are not UTF-8

ReadLine = Callable[[str], str]  # prompt -> line; raises EOFError at the end, KeyboardInterrupt


def add_line(open_lines: list[str] | None, line: str) -> tuple[list[str] | None, str | None]:
    """Collects lines between triple quotes: (lines of an unfinished text or None, a complete text
    or None).

    >>> add_line(None, "hello")
    (None, 'hello')
    >>> add_line(None, '\"\"\"first')
    (['first'], None)
    >>> add_line(['first'], 'last\"\"\"')
    (None, 'first\\nlast')
    """
    if open_lines is None:
        if not line.lstrip().startswith(QUOTES):
            return None, line
        open_lines, line = [], line.lstrip()[len(QUOTES) :]
    if line.rstrip().endswith(QUOTES):
        return None, "\n".join([*open_lines, line.rstrip()[: -len(QUOTES)]]).strip("\n")
    return [*open_lines, line], None


def read_texts(read: ReadLine) -> Iterator[tuple[str, bool]]:
    """Complete texts until the end of input, and whether each was written between triple quotes.

    A text that is unfinished at the end of input is returned as it is.
    """
    open_lines: list[str] | None = None
    quoted = False
    while True:
        try:
            line = read(PROMPT if open_lines is None else MORE)
        except EOFError:
            if open_lines:
                yield "\n".join(open_lines), True
            return
        quoted = open_lines is not None or line.lstrip().startswith(QUOTES)
        open_lines, text = add_line(open_lines, line)
        if text is not None:
            yield text, quoted


def run_chat(
    loaded: LoadedModel,
    sampling: SamplingConfig | None = None,
    system: str = "",
    lang: str | None = None,
    *,
    quiet: bool = False,
    stdin: TextIO | None = None,
    history: Path | None = None,
) -> int:
    """Chats until Ctrl-D, /exit or the end of input; returns the exit code.

    `quiet` omits greeting and statistics. An error is shown and the conversation continues; with
    piped input the exit code of the first error is returned at the end. Ctrl-C stops the answer on
    a terminal; with piped input it raises KeyboardInterrupt. A reader of standard output that goes
    away (`| head`) ends the chat.
    """
    stdin = stdin or sys.stdin
    session = ChatSession(loaded, sampling, system, lang)
    interactive = is_interactive(stdin)
    read = _editor(history or chat_history()) if interactive else _lines(stdin)
    if not quiet:
        say(greeting(session))
    failed = 0
    keyboard = stdin if interactive else None
    for text, quoted in _texts(read, interactive):
        try:
            if _handle(session, _SURROGATES.sub("\ufffd", text), quoted, keyboard, quiet):
                break
        except HoloError as error:
            say(message(str(error)))
            failed = failed or error.exit_code
        except ReaderGone:
            break
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            say(_unexpected(error))
            failed = failed or 1
        except KeyboardInterrupt:  # during prefill or a command: nothing has changed
            if not interactive:
                raise
            say("Interrupted.")
    return 0 if interactive else failed


def is_interactive(stdin: TextIO) -> bool:
    """Whether input and one of the outputs are a terminal; stdout may be a file."""
    return stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())


def greeting(session: ChatSession) -> str:
    """The model, what it does, and where to find help."""
    header = session.loaded.header
    name = one_line(f"{header.model} ({header.run})" if header.run else header.model)
    lines = [f"Model: {name}, step {header.step:,}"]
    if session.only_continues:
        lines.append("This is a base model: it continues your text.")
    return "\n".join([*lines, "Type /help (/도움말) for the commands."])


def answer_statistics(session: ChatSession) -> str:
    """The statistics after an answer."""
    s = session.statistics
    used = f"{s.context_used} of {s.context_limit}" if s.context_limit else str(s.context_used)
    finish = s.finish or "end"
    lines = [
        f"[{counted(s.tokens, 'token')}, {s.tokens_per_second:.1f} tokens/s, context {used}, "
        f"finish: {finish}]"
    ]
    if s.drafted is not None:
        lines.append(f"[{translate(s.drafted.sentence())}]")
    if s.dropped_turns:
        lines.append(f"[Turns that no longer fit in the context: {s.dropped_turns}]")
    if s.cut:
        lines.append("[Your text is longer than the context: its beginning was dropped.]")
    return "\n".join(lines)


# -- one text -------------------------------------------------------------------------------------


def _handle(
    session: ChatSession, text: str, quoted: bool, keyboard: TextIO | None, quiet: bool
) -> bool:
    """Runs a command or answers a text; True ends the chat. `keyboard` is None for piped input."""
    command = None if quoted else parse_command(text)
    if command is not None:
        outcome = command[0].run(session, command[1])
        if outcome.message:
            say(outcome.message)
        if outcome.pieces is not None:
            _show(session, outcome.pieces, keyboard, quiet)
        return outcome.leave
    if not text.strip():
        return False
    plain = to_nfc(text if quoted else plain_text(text))
    if missing := session.loaded.tokenizer.unknown(plain):
        say(f"Skipped characters that the tokenizer cannot encode: {' '.join(missing)}")
    _show(session, session.reply(plain), keyboard, quiet)
    return False


def _show(
    session: ChatSession,
    pieces: Generator[str, None, None],
    keyboard: TextIO | None,
    quiet: bool,
) -> None:
    """Writes an answer as it is decoded; Ctrl-C on a terminal stops only the answer."""
    answer = AnswerWriter()
    with typing_hidden(keyboard) if keyboard is not None else nullcontext():
        try:
            for piece in pieces:
                answer.write(piece)
        except KeyboardInterrupt:
            pieces.close()
            if keyboard is None:
                raise
        answer.close()
    if not quiet:
        say(answer_statistics(session))


def say(text: str) -> None:
    """Writes a message to stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def _unexpected(error: BaseException) -> str:
    """What is said of an error that no command or model should raise."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "Out of memory. Type /clear, or start the chat with --device cpu."
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return message(f"{error.filename}: {reason}." if error.filename else f"{reason}.")
    return message(f"Unexpected {type(error).__name__}: {error}")


# -- lines ----------------------------------------------------------------------------------------


def _texts(read: ReadLine, interactive: bool) -> Iterator[tuple[str, bool]]:
    """As `read_texts`; Ctrl-C at the prompt of a terminal discards the current line only."""
    while True:
        try:
            yield from read_texts(read)
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            say("Press Ctrl-D or type /exit to end the chat.")


def _lines(stdin: TextIO) -> ReadLine:
    def read(prompt: str) -> str:
        line = stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    return read


def _editor(history: Path) -> ReadLine:
    """A line editor with history and Tab completion of commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.output import create_output

    class LinesOnDisk(FileHistory):
        """A history that does without a line if the disk is full."""

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(string)

    kept: History = InMemoryHistory()
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch()
        kept = LinesOnDisk(str(history))
        list(kept.load_history_strings())  # a folder of that name fails here, not at the prompt
    except OSError as error:
        kept = InMemoryHistory()
        say(f"The input history cannot be saved to {history}: {error.strerror}.")
    names = [f"/{name}" for c in COMMANDS for name in (c.name, c.korean)]
    session: PromptSession[str] = PromptSession(
        history=kept,
        completer=WordCompleter(names, sentence=True),
        complete_while_typing=False,
        output=create_output(always_prefer_tty=True),  # stdout may be a file
    )
    return session.prompt
