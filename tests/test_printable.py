"""Text that a terminal would obey, shown instead."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest

from holo_cli.printable import (
    PrintableStream,
    guarded,
    json_text,
    message,
    one_line,
    printable,
    unguarded,
    write_exact,
)

LETTERS = "글 ㅎㅏㄴ é e\u0301 🧑\u200d🚀 שלום \u200fא 文字 \ue000"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_letters_and_lines_stay() -> None:
    assert printable(LETTERS + "\n\tb\r\n") == LETTERS + "\n\tb\n"


def test_no_character_that_is_obeyed_is_left() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = {c for c in printable(everything) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert left == {"\n", "\t"}
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(
        printable(everything)
    )
    assert {"\n", "\t"}.isdisjoint(one_line(everything))
    assert printable(printable(everything)) == printable(everything)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),  # writes to the clipboard
        ("\x9b2J", "\\x9b2J"),  # clears the screen, in the one-byte form
        ("a\rb", "a\\x0db"),
        ("\u2066abc\u2069", "\\u2066abc\\u2069"),
        ("\ud800 \udcfe", "\\ud800 \\xfe"),
    ],
)
def test_what_is_obeyed_is_an_escape(text: str, shown: str) -> None:
    assert printable(text) == one_line(text) == shown


def test_json_stays_the_same_document() -> None:
    assert json_text('{"a": "\x7f글\u202e"}\n') == '{"a": "\\u007f글\\u202e"}\n'


def test_lines_of_a_message_are_marked() -> None:
    assert message("one") == "one"
    assert message("one\nError: two\n") == "one\n    | Error: two"


def test_standard_streams_are_guarded_and_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with guarded():
        print("a\x1bb")
        print("c\x07", file=sys.stderr)
        sys.stdout.writelines(["\x9b"])
        assert sys.stdout.isatty()
        assert unguarded(sys.stdout) is out
    assert (sys.stdout, sys.stderr) == (out, err)
    assert (out.getvalue(), err.getvalue()) == ("a\\x1bb\n\\x9b", "c\\x07\n")


def test_a_process_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with guarded():
        assert sys.stdout is None


def test_a_result_is_exact_off_a_terminal_only() -> None:
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        write_exact(PrintableStream(stream), "a\x1b\r\n")  # type: ignore[arg-type]
    assert (file.getvalue(), terminal.getvalue()) == ("a\x1b\r\n", "a\\x1b\n")
