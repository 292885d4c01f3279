"""The command line in the user's language: help pages, what Typer prints itself, and stderr."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, get_args, get_type_hints

import typer
from typer.models import ParameterInfo

from holo_cli.translation import language, translate

HELP = {"--help", "-h"}


class TranslatedStream:
    """A text stream that translates each complete line; an unfinished line passes as it is.

    Progress bars and prompts write pieces of lines: they are never held back.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        lines = text.split("\n")
        if len(lines) > 1 and "\r" not in text:
            whole = translate("\n".join(lines[:-1]))
            self._stream.write(f"{whole}\n{lines[-1]}")
        else:
            # print() writes the line and its end apart
            self._stream.write(translate(text) if "\r" not in text else text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def translated(app: typer.Typer, arguments: Sequence[str]) -> Iterator[None]:
    """Run a command line with its help and its stderr in the user's language."""
    if language() == "en":
        yield
        return
    stdout, stderr = sys.stdout, sys.stderr
    wants_help = not arguments or bool(HELP.intersection(arguments))
    translate_help(app)
    # help is wrapped by counting letters, and a Hangul letter takes two columns
    app.info.context_settings = {**(app.info.context_settings or {}), "max_content_width": 64}
    sys.stderr = TranslatedStream(stderr)
    if wants_help:
        sys.stdout = TranslatedStream(stdout)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def translate_help(app: typer.Typer) -> None:
    """Replace the help texts that the commands and options of an app carry."""
    app.info.help = _text(app.info.help)
    app.info.epilog = _text(app.info.epilog)
    if app.registered_callback is not None:
        _command(app.registered_callback)
    for command in app.registered_commands:
        _command(command)
    for group in app.registered_groups:
        group.help = _text(group.help)
        if group.typer_instance is not None:
            translate_help(group.typer_instance)


def _command(command: Any) -> None:
    function = command.callback
    command.help = _text(command.help or inspect.getdoc(function))
    command.epilog = _text(command.epilog)
    for parameter in help_parameters(function):
        parameter.help = _text(parameter.help)


def help_parameters(function: Any) -> Iterator[ParameterInfo]:
    """The options and arguments in a command's annotations.

    Annotations are strings until they are evaluated, and each evaluation makes new objects: the
    evaluated ones are kept, so that Typer reads those that are changed here.
    """
    function.__annotations__ = get_type_hints(function, include_extras=True)
    for annotation in function.__annotations__.values():
        for part in get_args(annotation):
            if isinstance(part, ParameterInfo):
                yield part


def _text(text: Any) -> Any:
    """A help text paragraph by paragraph: Typer wraps each by itself."""
    if not isinstance(text, str):
        return text
    return "\n\n".join(translate(paragraph) for paragraph in text.split("\n\n"))
