"""The sink: what goes to which stream, JSON, UTF-8 under any locale, readers that go away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holo_cli.cli.output import Output, count, dumps, duration, size

KOREAN = "옛날 옛적에 🧑‍🚀"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    setup = "import sys\nfrom holo_cli.cli.output import Output, use_utf8\nuse_utf8()\n"
    return subprocess.run(
        [sys.executable, "-c", setup + code],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=300,
    )


def test_json_is_one_document_of_real_letters_without_nan() -> None:
    data = {"text": KOREAN, "loss": float("nan"), "path": Path("a/b"), "n": [1, float("inf")]}
    assert json.loads(dumps(data)) == {"text": KOREAN, "loss": None, "path": "a/b", "n": [1, None]}
    assert KOREAN in dumps(data)


def test_streams(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.text("result")
    out.note("progress")
    out.document({"a": 1})
    out.end("Wrote x.", "holo chat")
    assert capsys.readouterr() == ("result\n", "progress\nWrote x.\nNext: holo chat\n")
    out = Output(json=True)
    out.text("result")
    out.facts([("a", 1)])
    out.table(("a",), [(1,)])
    out.document({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    out = Output(verbosity=False)
    out.note("progress")
    out.warn("careful")
    assert capsys.readouterr() == ("", "Warning: careful\n")


def test_other_ranks_are_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    out = Output()
    out.text("result")
    out.note("progress")
    assert capsys.readouterr() == ("", "")


def test_a_table_off_a_terminal_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("name", "n"), [("a", 1), ("longer [red]", 22)])
    assert capsys.readouterr().out == "name          n\na             1\nlonger [red]  22\n"


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_korean_prints_under_any_locale(environment: dict[str, str]) -> None:
    ran = python(f"o = Output(); o.text({KOREAN!a}); o.note({KOREAN!a})", **environment)
    assert ran.stdout.decode("utf-8").split("\n")[0].rstrip("\r") == KOREAN
    assert ran.stderr.decode("utf-8").split("\n")[0].rstrip("\r") == KOREAN


def test_standard_input_is_utf8_too() -> None:
    code = "Output().text(str(len(sys.stdin.read())))"
    setup = "import sys\nfrom holo_cli.cli.output import Output, use_utf8\nuse_utf8()\n"
    ran = subprocess.run(
        [sys.executable, "-c", setup + code],
        input="글자".encode() + b"\xff",
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=300,
    )
    assert ran.stdout.split() == [b"3"], ran.stderr


def test_half_an_emoji_does_not_stop_the_output() -> None:
    ran = python("Output().text('a\\udc80b')")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [b"a?b"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently on Windows")
def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys\nfrom holo_cli.cli.output import Output\nfrom holo_cli.streams import lasting\n"
        "with lasting():\n o = Output()\n while not o.reader_gone: o.text('line')\n"
        "print('ended', file=sys.stderr)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout
    assert writer.stderr
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read().split() == [b"ended"]
    writer.stderr.close()
    assert writer.wait(timeout=300) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently on Windows")
def test_help_into_a_closed_pipe_shows_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-m", "holo_cli", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=300,
    )
    os.close(writer)
    assert ran.stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_only_on_a_terminal_that_wants_it(
    environment: dict[str, str], coloured: bool
) -> None:
    import pty

    main, side = pty.openpty()
    code = "from holo_cli.cli.output import Output\nOutput().table(('name',), [('row',)])"
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    if "NO_COLOR" not in environment:
        env.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", code], stdout=side, env=env, check=True, timeout=300)
    os.close(side)
    shown = os.read(main, 65536).decode("utf-8")
    os.close(main)
    assert "row" in shown
    assert ("\x1b[" in shown) == coloured


def test_figures_for_people() -> None:
    assert [count(n) for n in (950, 12_345, 4_560_000, 2.5)] == ["950", "12.3k", "4.56M", "2.5"]
    assert [size(n) for n in (512, 3_400_000)] == ["512 bytes", "3.4 MB"]
    assert [duration(s) for s in (4.2, 185, 7800)] == ["4.2 s", "3 min 05 s", "2 h 10 min"]


HOSTILE = "a\x1b[2J\x9b\u202e\udcff\nError: forged\tb"


def test_values_and_cells_stay_on_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = "a\\x1b[2J\\x9b\\u202e\\xff\\nError: forged\\tb"
    Output().facts([(HOSTILE, HOSTILE), ("b", 1)])
    assert capsys.readouterr().out == f"{shown}  {shown}\n{'b':<{len(shown)}}  1\n"
    Output().table((HOSTILE, "n"), [(HOSTILE, 1)])
    assert capsys.readouterr().out == f"{shown}  n\n{shown}  1\n"
    Output().heading(HOSTILE)
    assert capsys.readouterr().out == f"{shown}\n"


def test_a_name_in_a_message_cannot_imitate_another_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().note("Run a\nError: forged")
    Output().warn("Run b\nNext: forged")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Run a", "    | Error: forged", "Warning: Run b", "    | Next: forged"]


def test_json_escapes_what_a_terminal_obeys() -> None:
    written = dumps({HOSTILE: HOSTILE})
    assert json.loads(written) == {HOSTILE: HOSTILE}
    assert written.isprintable()
    assert written.count("\\u202e") == 2
