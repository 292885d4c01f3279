"""The terminal side of a conversation: lines in, pieces out.

On a terminal a line editor with history (prompt_toolkit in its line mode: the terminal itself
composes Korean, nothing here sees single keys); off a terminal plain lines of standard input.
Answers go to stdout as they come, everything else to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TextIO

from holo_cli.errors import HoloError
from holo_cli.inference.chat.commands import COMMANDS, count, parse_command, plain_text
from holo_cli.inference.chat.session import ChatSession
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig

PROMPT = "> "
MORE = "... "
QUOTES = '"""'

ReadLine = Callable[[str], str]  # prompt -> line; raises EOFError at the end, KeyboardInterrupt


def add_line(open_lines: list[str] | None, line: str) -> tuple[list[str] | None, str | None]:
    """Collects lines between triple quotes: (lines of an open text or None, a complete text or
    None).

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
    """Complete texts until the end of the input, and whether each was written between quotes.

    A text that is still open at the end of the input is complete there.
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
    """Talks until Ctrl-D, /exit or the end of the input; returns the exit code.

    `quiet` leaves out greeting and statistics. On a terminal errors are shown and the conversation
    goes on; with piped input too, and the first error's exit code is returned at the end. Ctrl-C
    stops an answer on a terminal; with piped input it ends everything (KeyboardInterrupt).
    """
    stdin = stdin or sys.stdin
    session = ChatSession(loaded, sampling, system, lang)
    interactive = is_interactive(stdin)
    read = _editor(history or history_file()) if interactive else _lines(stdin)
    if not quiet:
        _say(greeting(session))
    failed = 0
    for text, quoted in _texts(read, interactive):
        try:
            if _take(session, text, quoted, interactive, quiet):
                break
        except HoloError as error:
            _say(str(error))
            failed = failed or error.exit_code
        except KeyboardInterrupt:  # while a text or a file was read: nothing has happened yet
            if not interactive:
                raise
            _say("Stopped.")
    return 0 if interactive else failed


def is_interactive(stdin: TextIO) -> bool:
    """Whether a person sits at both ends; answers may go to a file meanwhile."""
    return stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())


def greeting(session: ChatSession) -> str:
    """One or two lines: who is there and what it can do."""
    header = session.loaded.header
    words = [f"{header.model}{f' ({header.run})' if header.run else ''}, step {header.step:,}."]
    if session.only_continues:
        words.append("It was trained on plain text: it does not answer, it goes on from your text.")
    return " ".join([*words, "/help (/도움말) lists the commands."])


def summary(session: ChatSession) -> str:
    """The line of figures after an answer."""
    s = session.statistics
    used = f"{s.context_used} of {s.context_limit}" if s.context_limit else str(s.context_used)
    line = f"{s.tokens} tokens, {s.tokens_per_second:.1f} tokens/s, context {used}"
    if s.finish != "end":
        line += f", finish: {s.finish}"
    if s.dropped_turns:
        line += f", the oldest {count(s.dropped_turns)} left out"
    if s.cut:
        line += ", the beginning of your text did not fit"
    return f"[{line}]"


def history_file() -> Path:
    """Where this system keeps a program's state: the lines typed in earlier chats."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "holo" / "chat_history"


# -- one text -------------------------------------------------------------------------------------


def _take(session: ChatSession, text: str, quoted: bool, interactive: bool, quiet: bool) -> bool:
    """Runs a command or answers a text; True to leave."""
    command = None if quoted else parse_command(text)
    if command is not None:
        outcome = command[0].run(session, command[1])
        if outcome.message:
            _say(outcome.message)
        if outcome.pieces is not None:
            _show(session, outcome.pieces, interactive, quiet)
        return outcome.leave
    if not text.strip():
        return False
    said = text if quoted else plain_text(text)
    if missing := session.loaded.tokenizer.unknown(said):
        _say(f"The model's alphabet lacks {' '.join(missing)}: left out.")
    _show(session, session.reply(said), interactive, quiet)
    return False


def _show(
    session: ChatSession, pieces: Generator[str, None, None], interactive: bool, quiet: bool
) -> None:
    """Writes an answer as it comes; Ctrl-C on a terminal ends the answer and nothing else."""
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pieces.close()
        if not interactive:
            raise
    sys.stdout.write("\n")
    sys.stdout.flush()
    if not quiet:
        _say(summary(session))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- lines ----------------------------------------------------------------------------------------


def _texts(read: ReadLine, interactive: bool) -> Iterator[tuple[str, bool]]:
    """As `read_texts`; on a terminal Ctrl-C at the prompt only drops what was being typed."""
    while True:
        try:
            yield from read_texts(read)
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            _say("(Ctrl-D or /exit leaves)")


def _lines(stdin: TextIO) -> ReadLine:
    def read(prompt: str) -> str:
        line = stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    return read


def _editor(history: Path) -> ReadLine:
    """A line editor with history and completion of commands by Tab."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.output import create_output

    kept: History = InMemoryHistory()
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch()
        kept = FileHistory(str(history))
    except OSError as error:
        _say(f"Typed lines will not be remembered: {history}: {error.strerror}.")
    names = [f"/{name}" for c in COMMANDS for name in (c.name, c.korean)]
    session: PromptSession[str] = PromptSession(
        history=kept,
        completer=WordCompleter(names, sentence=True),
        complete_while_typing=False,
        output=create_output(always_prefer_tty=True),  # stdout may be a file
    )
    return session.prompt
