"""Every failure is one sentence, a next step and an exit code; tracebacks only when asked for."""

from __future__ import annotations

import errno

import pytest

from holo_cli.cli.errors import explain
from holo_cli.errors import CheckpointError, Stopped, UsageError
from tests.cli.conftest import Fake, Holo


class OutOfMemoryError(RuntimeError):
    """Named like torch's own."""


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (UsageError("Wrong.", next_step="Do right."), 2, "Wrong."),
        (CheckpointError("Damaged."), 1, "Damaged."),
        (Stopped("Saved."), 3, "Saved."),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (FileNotFoundError(errno.ENOENT, "no", "a.txt"), 1, "There is no file 'a.txt'"),
        (PermissionError(errno.EACCES, "no", "a.txt"), 1, "No permission to access 'a.txt'"),
        (IsADirectoryError(errno.EISDIR, "is", "texts"), 1, "'texts' is a folder"),
        (OSError(errno.ENOSPC, "full", "a.bin"), 1, "The disk is full: 'a.bin'"),
        (
            ModuleNotFoundError("No module", name="pip_me"),
            1,
            "The package 'pip_me' is not installed",
        ),
        (MemoryError(), 1, "Out of memory"),
        (OutOfMemoryError("CUDA"), 1, "Out of memory"),
        (UnicodeDecodeError("utf-8", b"\xb0", 0, 1, "invalid"), 1, "not UTF-8"),
        (ZeroDivisionError("by zero"), 1, "Unexpected ZeroDivisionError: by zero"),
    ],
)
def test_the_table(error: BaseException, code: int, part: str) -> None:
    report = explain(error)
    assert report.exit_code == code
    assert part in report.message


def test_no_flag_is_named_that_a_command_may_not_have() -> None:
    report = explain(UnicodeDecodeError("utf-8", b"\xb0", 0, 1, "invalid"))
    assert "--" not in report.next_step


def fails(error: Exception) -> object:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


def test_an_error_is_a_sentence_and_a_next_step_on_stderr(holo: Holo, fake: Fake) -> None:
    error = CheckpointError("The file x is damaged.", next_step="Take another one.")
    fake("holo_cli.checkpoint", find_checkpoint=fails(error), inspect_checkpoint=None)
    ran = holo("inspect", "x")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: The file x is damaged.\n  Take another one.\n"


def test_a_fault_of_ours_admits_it_and_names_debug(holo: Holo, fake: Fake) -> None:
    fake("holo_cli.checkpoint", find_checkpoint=fails(KeyError("lost")), inspect_checkpoint=None)
    ran = holo("inspect")
    assert ran.code == 1
    assert "Unexpected KeyError" in ran.err
    assert "--debug" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_debug_shows_the_traceback(
    holo: Holo, fake: Fake, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    fake("holo_cli.checkpoint", find_checkpoint=fails(KeyError("lost")), inspect_checkpoint=None)
    if place == "environment":
        monkeypatch.setenv("HOLO_DEBUG", "1")
    words = {"before": ["--debug", "inspect"], "after": ["inspect", "--debug"]}
    ran = holo(*words.get(place, ["inspect"]))
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err


def test_ctrl_c_ends_with_130_and_no_traceback(holo: Holo, fake: Fake) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    fake("holo_cli.checkpoint", find_checkpoint=interrupted, inspect_checkpoint=None)
    ran = holo("inspect")
    assert ran.code == 130
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "--stpes", "5"], "--steps"),
        (["train", "--model", "vanila"], "Did you mean 'vanilla'?"),
        (["train", "--steps", "many"], "--steps"),
        (["models", "vanila"], "Did you mean 'vanilla'?"),
        (["visualize", "cords"], "Did you mean 'coords'?"),
        (["generate", "--prompt", "a", "--file", "b"], "cannot be combined"),
        (["generate", "--prompt", "a", "--temperature", "-1"], "--temperature"),
        (["generate", "--prompt", "a", "--dtype", "float3"], "Did you mean 'float32'?"),
        (["train"], "--model"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_right_thing(
    holo: Holo, words: list[str], part: str
) -> None:
    ran = holo(*words)
    assert (ran.code, ran.out) == (2, "")
    assert part in ran.err
