"""The terminal side: lines in, pieces to stdout, the rest to stderr, and Ctrl-C and Ctrl-D."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.inference.chat import terminal
from holo_cli.inference.chat.terminal import add_line, answer_statistics, read_texts, run_chat
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.streams import LastingStream
from tests.inference.inference_fakes import Chain, Scripted, make_loaded

GREEDY = SamplingConfig(temperature=0, max_new_tokens=4)


def lines(text: str) -> Callable[[str], str]:
    waiting = text.splitlines()

    def read(prompt: str) -> str:
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    return read


def texts(text: str) -> list[tuple[str, bool]]:
    return list(read_texts(lines(text)))


# -- several lines --------------------------------------------------------------------------------


def test_texts_of_several_lines() -> None:
    assert texts("a\nb") == [("a", False), ("b", False)]
    assert texts('"""a\nb\n\nc"""\nd') == [("a\nb\n\nc", True), ("d", False)]
    assert texts('"""\na\n"""') == [("a", True)]
    assert texts('"""a"""') == [("a", True)]
    assert texts('say "hi" """') == [('say "hi" """', False)]
    assert texts('"""\n/exit\n"""') == [("/exit", True)]
    assert texts('"""never\nclosed') == [("never\nclosed", True)]


def test_add_line_is_pure() -> None:
    opened = ["a"]
    assert add_line(opened, "b") == (["a", "b"], None)
    assert opened == ["a"]


# -- off a terminal -------------------------------------------------------------------------------


def test_piped_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = make_loaded(Scripted([*"네!".encode()], prompt=2))
    code = run_chat(loaded, GREEDY, stdin=io.StringIO("hi\n\n/set temperature 0.0\n/exit\nno\n"))
    out, err = capsys.readouterr()
    assert code == 0
    assert out == "네!\n"
    assert "This is a base model: it continues your text." in err
    assert "[4 tokens," in err
    assert "context 6, finish: length" in err
    assert "temperature 0.0" in err


def test_quiet_says_only_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(make_loaded(Chain()), GREEDY, stdin=io.StringIO("hi"), quiet=True)
    assert capsys.readouterr().err == ""


def test_errors_go_on_and_are_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = make_loaded(Scripted([], prompt=0))
    code = run_chat(loaded, GREEDY, stdin=io.StringIO("/hepl\n/load none.json\nhi\n"))
    out, err = capsys.readouterr()
    assert code == 2
    assert out == "....\n"
    assert "Did you mean 'help'" in err
    assert "no conversation file none.json" in err


def test_no_line_ends_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = [
        "/save ~nobody-here/a", "/load ~nobody-here/a", "/memory save ~nobody-here/a",
        "/memory load ~nobody-here/a.json", "/save .", "/load .", "/load ..", "/save /", "/save a/",
        "/save " + "a" * 300, "/load " + "글" * 300, "/memory load " + "a" * 300,
        "/save a\0b", "/load a\0b", "/memory save \0", "/save /dev/null/a", "/load /dev/null/a",
        '/set stop "', "/set stop [1]", "/set stop " + "[" * 100_000, "/set seed " + "9" * 5000,
        "/set temperature nan", "/set temperature 1e999", "/set lang \0", "/set \0 1", "/set =",
        "/\ud800", "/system \ud800", "hi \udcff", "/", "//", '"""', "\x1b[A", '"""',
        "/save ~draft", "/load ~draft", "/exit", "not read",
    ]  # fmt: skip
    loaded = make_loaded(Scripted([], prompt=0))
    assert run_chat(loaded, GREEDY, stdin=io.StringIO("\n".join(typed))) > 0
    out, err = capsys.readouterr()
    assert (tmp_path / "~draft.json").is_file()
    assert "Loaded 3 turns from ~draft.json." in err
    assert "There is no folder '~nobody-here'." in err
    assert not (tmp_path / "~nobody-here").exists()
    assert "Unexpected" not in err
    assert out == "....\n" * 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error", "a.json"), "a.json: Input/output error."),
        (ValueError("of a kind nobody foresaw"), "Unexpected ValueError: of a kind"),
        (RuntimeError("mat1 and mat2"), "Unexpected RuntimeError: mat1 and mat2"),
        (MemoryError(), "Out of memory."),
    ],
)
def test_an_unexpected_error_is_told_and_the_conversation_continues(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("holo_cli.inference.chat.session.load_conversation", fail)
    loaded = make_loaded(Scripted([], prompt=0))
    assert run_chat(loaded, GREEDY, stdin=io.StringIO("/load a\nhi\n")) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert out == "....\n"


def test_a_reader_that_goes_away_ends_the_chat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with (
        open(writer, "w", encoding="utf-8") as gone,  # noqa: PTH123 - a descriptor
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", LastingStream(gone))
        loaded = make_loaded(Scripted([], prompt=0))
        assert run_chat(loaded, GREEDY, stdin=io.StringIO("hi\nyou\n")) == 0
    assert "tokens/s" not in capsys.readouterr().err


def test_what_a_model_generates_is_exact_off_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = make_loaded(Scripted([*b"\x1b[2J"], prompt=2))
    run_chat(loaded, GREEDY, stdin=io.StringIO("hi"))
    assert capsys.readouterr().out == "\x1b[2J\n"


def test_messages_show_what_a_file_contains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talk.json"
    content = {"holo_conversation": 1, "system": "a\x1b[2J\nNext: b", "lang": None, "turns": []}
    path.write_text(json.dumps(content), encoding="utf-8")
    loaded = make_loaded(Scripted([], prompt=0))
    run_chat(loaded, GREEDY, stdin=io.StringIO(f"/load {path}\n/show\n/load no\x1b\u202e\n"))
    err = capsys.readouterr().err
    assert "system: a\\x1b[2J\\nNext: b\n" in err
    assert "no conversation file no\\x1b\\u202e.json" in err


def test_a_setting_shows_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = make_loaded(Scripted([], prompt=0))
    typed = "/set lang\n/set lang ko\n/set lang\n/set top-p\n/set lang none\n/set seed\n/set x\n"
    run_chat(loaded, GREEDY, stdin=io.StringIO(typed), quiet=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "lang (detected in each text)"
    assert lines[1] == "language: ko"
    assert lines[3:5] == ["lang ko", "top-p 1.0"]
    assert lines[5] == "language: (detected in each text)"
    assert lines[7] == "seed none"
    assert "no sampling option 'x'" in lines[8]


def test_commands_inside_quotes_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = make_loaded(Scripted([], prompt=0))
    assert run_chat(loaded, GREEDY, stdin=io.StringIO('"""\n/exit\n"""\n//exit\n')) == 0
    assert capsys.readouterr().out == "....\n....\n"


def test_skipped_characters_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = make_loaded(Chain(vocab=4), CharTokenizer("ab\n"))
    run_chat(loaded, GREEDY, stdin=io.StringIO("a한b글\n"))
    assert "tokenizer cannot encode: 글 한" in capsys.readouterr().err


def test_interrupt_off_a_terminal_ends_everything(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = make_loaded(Interrupting())
    with pytest.raises(KeyboardInterrupt):
        run_chat(loaded, GREEDY, stdin=io.StringIO("hi\nyou\n"))


# -- on a terminal --------------------------------------------------------------------------------


class Interrupting(Scripted):
    """Ctrl-C comes while the third token of the first answer is computed."""

    def __init__(self) -> None:
        super().__init__([*b"abcdef"], prompt=2)
        self.steps = 0

    def step_hidden(self, tokens, state):  # type: ignore[no-untyped-def]
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt
        return super().step_hidden(tokens, state)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str | type[BaseException]]:
    """What a person types, line by line; an exception stands for its key."""
    waiting: list[str | type[BaseException]] = []

    def read(prompt: str) -> str:
        item = waiting.pop(0) if waiting else EOFError
        if isinstance(item, str):
            return item
        raise item

    monkeypatch.setattr(terminal, "_editor", lambda history: read)
    monkeypatch.setattr(terminal, "is_interactive", lambda stdin: True)
    return waiting


def test_ctrl_c_stops_the_answer_only(
    typed: list[str | type[BaseException]], capsys: pytest.CaptureFixture[str]
) -> None:
    typed[:] = ["hi", "/show", "you"]
    assert run_chat(make_loaded(Interrupting()), GREEDY) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ab\n")
    assert len(out.splitlines()) == 2
    assert "finish: stopped" in err
    assert "turns: 1," in err


def test_ctrl_c_at_the_prompt_drops_the_line(
    typed: list[str | type[BaseException]], capsys: pytest.CaptureFixture[str]
) -> None:
    typed[:] = ['"""half', KeyboardInterrupt, "hi"]
    assert run_chat(make_loaded(Scripted([], prompt=0)), GREEDY) == 0
    out, err = capsys.readouterr()
    assert out == "....\n"
    assert "Ctrl-D or type /exit" in err


def test_ctrl_c_while_a_text_is_read(
    typed: list[str | type[BaseException]], capsys: pytest.CaptureFixture[str]
) -> None:
    model = Interrupting()
    model.steps = 2
    typed[:] = ["hi", "/show", "you"]
    assert run_chat(make_loaded(model), GREEDY) == 0
    err = capsys.readouterr().err
    assert "Interrupted." in err
    assert "turns: 0," in err


def test_errors_on_a_terminal_are_no_exit_code(
    typed: list[str | type[BaseException]], capsys: pytest.CaptureFixture[str]
) -> None:
    typed[:] = ["/what"]
    assert run_chat(make_loaded(Chain()), GREEDY) == 0
    assert "There is no command" in capsys.readouterr().err


def test_line_editor_with_a_real_input(tmp_path: Path) -> None:
    """Korean as a terminal delivers it, editing, history written, Ctrl-D."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    history = tmp_path / "state" / "holo" / "chat_history"
    with (
        create_pipe_input() as keys,
        pytest.MonkeyPatch.context() as patch,
        create_app_session(input=keys, output=DummyOutput()) as session,
    ):
        patch.setattr("prompt_toolkit.output.create_output", lambda **_: DummyOutput())
        read = terminal._editor(history)
        keys.send_text("안녕하세요\r")
        assert read("> ") == "안녕하세요"
        keys.send_text("가나다\x7f\x7f라\r")  # backspace removes whole syllables
        assert read("> ") == "가라"
        keys.send_text("\x1b[A\x1b[A\r")  # up, up
        assert read("> ") == "안녕하세요"
        keys.send_text("/도움\t")

        def enter_once_completed() -> None:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if session.app and session.app.current_buffer.text.strip() == "/도움말":
                    break
                time.sleep(0.01)
            keys.send_text("\r")

        threading.Thread(target=enter_once_completed).start()
        assert read("> ").strip() == "/도움말"
        keys.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            read("> ")
        keys.send_text("\x04")
        with pytest.raises(EOFError):
            read("> ")
    assert "+안녕하세요" in history.read_text(encoding="utf-8")


def test_summary_says_what_was_left_out() -> None:
    from holo_cli.inference.chat.session import ChatSession, Statistics
    from holo_cli.inference.generation.speculation import DraftCounts

    session = ChatSession(make_loaded(Chain()))
    session.statistics = Statistics(9, 12.345, "end", 3, 60, 64, 2, DraftCounts(5, 8, 4), True)
    assert answer_statistics(session) == (
        "[9 tokens, 12.3 tokens/s, context 60 of 64, finish: end]\n"
        "[Drafts: 4 of 8 guessed tokens accepted, in 5 passes of all layers.]\n"
        "[Turns that no longer fit in the context: 2]\n"
        "[Your text is longer than the context: its beginning was dropped.]"
    )
