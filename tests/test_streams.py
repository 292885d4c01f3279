"""Commands outlive the readers of their streams: gone, closed at the start, or full."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from holo_cli.__main__ import main
from holo_cli.streams import LastingStream, lasting, open_closed, reader_gone

FULL = Path("/dev/full")
posix = pytest.mark.skipif(os.name == "nt", reason="descriptors of a Windows console differ")


@contextmanager
def unread() -> Iterator[TextIO]:
    """The writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        yield stream


class Failing(io.StringIO):
    """A stream that cannot be written, for a reason."""

    def __init__(self, reason: int) -> None:
        super().__init__()
        self.reason = reason

    def write(self, text: str) -> int:
        raise OSError(self.reason, os.strerror(self.reason))


def test_a_reader_that_goes_away_is_no_error() -> None:
    with unread() as stream:  # leaving it writes the buffer once more
        lasting_one = LastingStream(stream)
        assert lasting_one.write("text\n") == 5
        lasting_one.flush()
        assert reader_gone(lasting_one)
        assert lasting_one.failure is None
        lasting_one.writelines(["more\n"])
        lasting_one.flush()


@pytest.mark.parametrize("reason", [errno.EIO, errno.EBADF, errno.ENXIO])
def test_a_closed_terminal_is_no_error(reason: int) -> None:
    stream = LastingStream(Failing(reason))
    stream.write("text")
    assert reader_gone(stream)
    assert stream.failure is None


def test_a_full_disk_is_told_at_the_end() -> None:
    stream = LastingStream(Failing(errno.ENOSPC))
    stream.write("text")
    assert reader_gone(stream)
    assert stream.failure is not None
    assert stream.failure.errno == errno.ENOSPC


def test_a_closed_stream_ends_but_a_wrong_text_is_a_fault() -> None:
    closed = io.StringIO()
    closed.close()
    stream = LastingStream(closed)
    stream.write("text")
    assert reader_gone(stream)
    with pytest.raises(ValueError, match="surrogates"):
        LastingStream(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")).write("\ud800")


def test_closed_streams_become_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    open_closed()
    assert sys.stdin.read() == ""
    with lasting():
        print("text", flush=True)
        print("text", file=sys.stderr, flush=True)
        assert not reader_gone(sys.stdout)


@posix
def test_a_pipe_that_does_not_wait_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "w", encoding="utf-8") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting():
            assert os.get_blocking(writer)
    os.close(reader)


def test_a_command_goes_on_without_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    with unread() as out, unread() as err, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        assert main(["models"]) == 0
        assert main(["--help"]) == 0
        assert main(["inspect", "nothing"]) == 1  # what failed still has its exit code


SCRIPT = f'"{sys.executable}" -m holo_cli'
ROOT = Path(__file__).parents[1]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("holo", SCRIPT, 1)], cwd=folder, text=True,
        capture_output=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@posix
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("holo models 2>&1 | true; exit ${PIPESTATUS[0]}", 0),
        ("holo models <&- >&- 2>&-", 0),
        ("holo models 2>/dev/full", 0),
        ("holo models >/dev/full", 1),
    ],
)
def test_the_process_ends_with_its_own_code(line: str, code: int, tmp_path: Path) -> None:
    """Python itself ends with 120 where it cannot write out its buffers."""
    if "full" in line and not FULL.exists():
        pytest.skip("this system has no /dev/full")
    ran = shell(line, tmp_path)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert ("disk is full" in ran.stderr) == (code == 1)
