"""Every help page ends with examples that can be typed, and writes defaults in one form."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from holo_cli.cli import generate as module
from holo_cli.cli.app import app
from holo_cli.cli.help import EXAMPLES, Command
from tests.cli.conftest import Holo

GROUPS = ("bench", "runs")
_shown: dict[tuple[str, ...], str] = {}


def help_of(holo: Holo, *path: str) -> str:
    """A command's help, made once: several tests read each."""
    if path not in _shown:
        ran = holo(*path, "--help")
        assert ran.code == 0, ran.err
        _shown[path] = ran.out
    return _shown[path]


def commands(holo: Holo, *group: str) -> list[str]:
    listed = help_of(holo, *group).partition("Commands:")[2]
    return re.findall(r"^  ([a-z][a-z-]*)  ", listed, re.MULTILINE)


def test_every_command_has_examples_and_every_example_a_command(holo: Holo) -> None:
    grouped = [f"{group} {name}" for group in GROUPS for name in commands(holo, group)]
    assert set(EXAMPLES) == {"", *commands(holo), *grouped}


@pytest.mark.parametrize("path", EXAMPLES)
def test_help_ends_with_two_or_three_examples(holo: Holo, path: str) -> None:
    shown = help_of(holo, *path.split())
    head, _, examples = shown.partition("\nExamples:\n")
    assert "Options:" in head
    lines = examples.splitlines()
    assert 2 <= len(lines) <= 3
    assert "[default:" not in shown
    for line in lines:
        assert line.startswith(f"  $ holo {path}".rstrip())
        assert len(line) <= 80


@pytest.mark.parametrize("example", [e for examples in EXAMPLES.values() for e in examples])
def test_the_options_of_examples_exist(holo: Holo, example: str) -> None:
    _, *words = shlex.split(example)
    path = words[: 1 + (words[0] in GROUPS and len(words) > 1)]
    shown = help_of(holo, *path)
    known = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shown.partition("Examples:")[0])
    assert {word for word in words if word.startswith("-")} <= set(known)


@pytest.fixture(scope="module")
def root() -> Any:
    return get_command(app)


@pytest.mark.parametrize("example", [e for examples in EXAMPLES.values() for e in examples])
def test_examples_parse(
    root: Any, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every value has a type that its option takes, and nothing is left over."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas").mkdir()
    (tmp_path / "ideas" / "mixer.py").touch()
    command = root
    _, *words = shlex.split(example)
    while words and words[0] in getattr(command, "commands", ()):
        command = command.commands[words.pop(0)]
    if "--help" not in words and not hasattr(command, "commands"):
        command.make_context(example, words)


def test_an_option_that_is_not_a_list_counts_once(holo: Holo) -> None:
    """Otherwise only the last value would be used, without a word."""
    ran = holo("prepare", "a", "--out", "x", "--out", "y")
    assert ran.code == 2
    assert ran.err.startswith("Error: --out was given twice.\n")
    ran = holo("generate", "-c", "one", "--checkpoint", "two")
    assert (ran.code, "--checkpoint was given twice" in ran.err) == (2, True)
    ran = holo("generate", "-c", "one", "--stop", "a", "--stop", "b", "-q")
    assert "given twice" not in ran.err


def test_options_are_read_when_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    commands = [c for c in group.commands.values() if isinstance(c, Command)]
    assert len(commands) > 15
    group.main(["--help"], standalone_mode=False)
    assert "prepare" in capsys.readouterr().out
    assert all(command._unread is not None for command in commands)
    generate = group.commands["generate"]
    assert isinstance(generate, Command)
    assert "prompt" in {p.name for p in generate.params}
    assert generate._unread is None
    assert inspect.unwrap(generate.callback or len) is module.generate
