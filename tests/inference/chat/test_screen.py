"""The terminal during an answer: what is typed waits, words are kept whole."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from holo_cli.errors import HoloError
from holo_cli.inference.chat import file_names
from holo_cli.inference.chat.screen import AnswerWriter, typing_hidden


def test_keys_typed_during_an_answer_are_not_shown_and_are_kept() -> None:
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    termios = pytest.importorskip("termios")
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal, "r", encoding="utf-8") as stdin, os.fdopen(keyboard, "rb+", 0) as keys:
        before = termios.tcgetattr(terminal)
        with typing_hidden(stdin):
            keys.write("다음\n".encode())
            assert select.select([keys], [], [], 0.1)[0] == []  # no echo
            assert select.select([stdin], [], [], 5)[0] == [stdin]
            assert termios.tcgetattr(terminal)[3] & termios.ISIG  # Ctrl-C still works
        assert termios.tcgetattr(terminal) == before
        with typing_hidden(stdin):  # as a line editor reads it
            assert os.read(terminal, 100).decode() == "다음\n"
        keys.write(b"x")
        assert keys.read(1) == b"x"  # echo is on again


def test_input_that_is_no_terminal_is_left_alone() -> None:
    with Path(os.devnull).open(encoding="utf-8") as stdin, typing_hidden(stdin):
        pass


def test_an_answer_is_wrapped_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda shown=is_terminal: shown)
        answer = AnswerWriter()
        for piece in ("옛날 옛", "적에 \x1b", "[2J a"):
            answer.write(piece)
        answer.close()
    exact, wrapped = "옛날 옛적에 \x1b[2J a\n", "옛날 옛적에\n\\x1b[2J a\n"
    assert capsys.readouterr().out == exact + wrapped


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("~nobody-here/a", "There is no folder '~nobody-here'"),
        (".", "is a folder"),
        ("..", "is a folder"),
        ("/", "is a folder"),
        ("", "is a folder"),
        ("a\0", "null character"),
        ("a" * 300, "cannot be used: File name too long"),
    ],
)
def test_names_that_cannot_be_files(
    typed: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for function in (file_names.to_read, file_names.to_write):
        with pytest.raises(HoloError, match=said):
            function(typed)


def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert file_names.to_write("talk") == Path("talk.json")
    assert file_names.to_write("~draft") == Path("~draft.json")
    assert file_names.to_write("talk.txt") == Path("talk.txt")
    assert file_names.to_read("~/talk.json") == tmp_path / "home" / "talk.json"
    (tmp_path / "plain").touch()
    assert file_names.to_read("plain") == Path("plain")
    (tmp_path / "~x").mkdir()
    assert file_names.to_write("~x/a") == Path("~x/a.json")
