"""From what a person types to a file, and one writer per run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holo_cli.checkpoint import (
    CheckpointError,
    RunLock,
    find_checkpoint,
    known_runs,
    run_path,
    split_run,
)
from holo_cli.errors import UsageError

TRAINING = ("last", "best")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs; ko is the newest, by its _best, and has no _last; mine was named by a person."""
    root = tmp_path / "checkpoints"
    root.mkdir()
    names = [
        "mine",
        "ngt-shakespeare_last",
        "ngt-shakespeare_best",
        "한국어_weights",
        "한국어_best",
    ]
    for age, name in enumerate(reversed(names)):
        path = root / f"{name}.safetensors"
        path.write_bytes(b"x")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    (root / ".ngt-shakespeare_last.safetensors.0123abcd.tmp").write_bytes(b"x")
    (root / "README.md").write_text("outputs")
    return root


def test_runs_are_listed_newest_first(root: Path) -> None:
    runs = known_runs(root)
    assert list(runs) == ["한국어", "ngt-shakespeare", "mine"]
    assert set(runs["ngt-shakespeare"]) == {"last", "best"}
    assert known_runs(root / "nowhere") == {}


@pytest.mark.parametrize(
    ("name", "prefer", "found"),
    [
        ("ngt-shakespeare", ("best", "last"), "ngt-shakespeare_best"),
        ("ngt-shakespeare", TRAINING, "ngt-shakespeare_last"),
        ("한국어", TRAINING, "한국어_best"),
        ("한국어", ("last",), "한국어_best"),
        ("mine", TRAINING, "mine"),
        ("ngt-shakespeare_last", ("best",), "ngt-shakespeare_last"),
        ("ngt-shakespeare_last.safetensors", ("best",), "ngt-shakespeare_last"),
        (None, TRAINING, "한국어_best"),
    ],
)
def test_a_name_is_found(root: Path, name: str | None, prefer: tuple[str, ...], found: str) -> None:
    assert find_checkpoint(name, root, prefer) == root / f"{found}.safetensors"  # type: ignore[arg-type]


def test_a_path_is_taken_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "ngt-shakespeare_last.safetensors"
    assert find_checkpoint(path, root) == path
    assert find_checkpoint(str(root / "ngt-shakespeare"), Path("nowhere")).stem.endswith("_best")
    monkeypatch.chdir(root.parent)
    assert find_checkpoint("checkpoints/mine.safetensors") == Path("checkpoints/mine.safetensors")


def test_a_folder_of_the_same_name_does_not_hide_a_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    Path("mine").mkdir()
    assert find_checkpoint("mine") == Path("checkpoints/mine.safetensors")


def test_an_exported_folder_is_a_checkpoint(root: Path) -> None:
    folder = root / "given"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    assert find_checkpoint(folder, root) == folder
    assert find_checkpoint("given", root) == folder


@pytest.mark.parametrize(
    ("name", "message", "next_step"),
    [
        ("ngt-shakespear", "There is no run 'ngt-shakespear'", "Did you mean 'ngt-shakespeare'?"),
        ("zebra", "There is no run 'zebra'", "Known: mine, ngt-shakespeare, 한국어."),
        ("", "The name of the checkpoint is empty.", "Known runs: 한국어, ngt-shakespeare, mine."),
        (" ", "The name of the checkpoint is empty.", "Known runs: "),
        ("a/b.safetensors", "There is no checkpoint at a/b", "Known: "),
        ("mime_best.safetensors", "There is no checkpoint at mime", "Did you mean 'mine'?"),
    ],
)
def test_what_is_not_found_names_what_there_is(
    root: Path, name: str, message: str, next_step: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(name, root)
    assert caught.value.message.startswith(message)
    assert caught.value.next_step.startswith(next_step)


def test_without_any_checkpoint_the_next_step_is_training(tmp_path: Path) -> None:
    for name in (None, "ngt", ""):
        with pytest.raises(CheckpointError) as caught:
            find_checkpoint(name, tmp_path)
        assert "holo train" in caught.value.next_step


def test_a_name_no_disk_can_hold_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("x" * 5000, tmp_path)
    assert caught.value.next_step


def test_run_names_are_file_names_everywhere() -> None:
    path = run_path(Path("c"), "밤 2", "best")
    assert path == Path("c/밤 2_best.safetensors")
    assert split_run(path) == ("밤 2", "best")
    assert split_run(Path("c/_best.safetensors")) == ("_best", "")
    for bad in ("", ".", "..", "a/b", "a\\b", "a:b", "-x", ".hidden", "a\n", " a", "a*"):
        with pytest.raises(UsageError, match="cannot name a run"):
            run_path(Path("c"), bad, "best")


# -- one writer per run ---------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from holo_cli.checkpoint import RunLock
with RunLock(Path(sys.argv[1]), "night"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_death_frees_the_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError) as caught, RunLock(tmp_path, "night"):
            pass
        assert f"process {holder.pid} since 2" in caught.value.message
        assert "--run" in caught.value.next_step
        with RunLock(tmp_path, "day"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 60
    while True:  # the system frees a dead process's locks soon, not at once, on some systems
        try:
            with RunLock(tmp_path, "night"):
                return
        except CheckpointError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_lock_excludes_its_own_process_too_and_can_be_taken_again(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "new", "night")
    for _ in range(2):
        with lock, pytest.raises(CheckpointError, match=f"process {os.getpid()}"):
            RunLock(tmp_path / "new", "night").acquire()
    lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="locks by another call there")
def test_a_disk_that_cannot_lock_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def unsupported(file: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(CheckpointError, match="Operation not supported"):
        RunLock(tmp_path, "night").acquire()


def test_finding_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys; from holo_cli.checkpoint import find_checkpoint, known_runs, run_path\n"
        "print([name for name in ('torch', 'pydantic', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
