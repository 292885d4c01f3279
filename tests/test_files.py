"""Files appear whole or not at all, and what killed writers leave behind goes away."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holo_cli import files


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "이야기.txt"
    files.atomic_write_text(path, "하나\n")
    files.atomic_write_text(path, "둘\n")
    assert path.read_bytes() == "둘\n".encode()
    assert entries(path.parent) == ["이야기.txt"]


def test_the_old_file_stays_visible_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with files.atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write() -> None:
        with files.atomic_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["a.bin"]


def test_bytes_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("rename"), replace(a, b))[1])
    files.atomic_write_bytes(tmp_path / "a", b"x")
    folder = [] if sys.platform == "win32" else ["fsync"]
    assert done == ["fsync", "rename", *folder]


def test_json_keeps_hangul_and_refuses_what_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.atomic_write_json(path, {"이름": 1})
    assert "이름" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.atomic_write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"이름": 1}


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    path, other = tmp_path / "run[1]_last.bin", tmp_path / "run[1]_last.bin.bak"
    dead, dead_other = (tmp_path / f".{p.name}.0123abcd.tmp" for p in (path, other))
    with files.atomic_file(path) as file:
        file.write(b"whole")
        living = entries(tmp_path)
        dead.write_bytes(b"half")  # as a killed writer leaves it: nobody holds its lock
        dead_other.write_bytes(b"half")
        files.remove_leftovers(path)
        assert entries(tmp_path) == sorted([*living, dead_other.name])
    assert path.read_bytes() == b"whole"


def test_a_lock_is_seen_by_other_processes_and_freed_at_close(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys; from holo_cli.files import try_lock\n"
        "with open(sys.argv[1], 'ab') as file: print(try_lock(file))"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", code, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with path.open("ab") as file:
        assert files.try_lock(file)
        assert other_process() == "False"
    assert other_process() == "True"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "set"
    with files.atomic_folder(path) as folder:
        (folder / "a").write_bytes(b"1")
        assert not path.exists()
    assert entries(path) == ["a"]
    assert entries(tmp_path) == ["set"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with files.atomic_folder(tmp_path / "set") as folder:
            (folder / "a").write_bytes(b"1")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        write()
    assert entries(tmp_path) == []


def test_a_full_folder_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "set"
    path.mkdir()
    with files.atomic_folder(path) as folder:  # an empty one is as good as none
        (folder / "old").write_bytes(b"1")
    with pytest.raises(FileExistsError), files.atomic_folder(path):
        pass
    assert entries(path) == ["old"]
    with files.atomic_folder(path, force=True) as folder:
        (folder / "new").write_bytes(b"2")
    assert entries(path) == ["new"]
    assert entries(tmp_path) == ["set"]
