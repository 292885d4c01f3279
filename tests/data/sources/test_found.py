"""Which files `--source` means."""

from __future__ import annotations

import io
import os
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

from holo_cli.data.sources.found import Found, find_files
from holo_cli.errors import DataError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX systems")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("text", encoding="utf-8")


def names(found: Found) -> list[str]:
    return [path.relative_to(found.root).as_posix() for path in found.paths]


def test_a_folder_counts_what_it_passes_over() -> None:
    touch("texts/a.txt", "texts/b.pdf", "texts/c.PDF", "texts/d.tar.gz", "texts/LICENSE")
    touch("texts/.hidden.txt", "texts/.git/x.txt", "texts/data/set/meta.json")
    touch("texts/data/set/tokenizer.json")
    found = find_files("texts", None)
    assert names(found) == ["a.txt"]
    assert found.passed_over == {
        ".pdf": 2, ".tar.gz": 1, "no suffix": 1, "hidden files": 1, "hidden folders": 1,
        "prepared sets": 1,
    }  # fmt: skip


def test_a_folder_without_texts_says_what_it_has() -> None:
    touch("scans/a.pdf", "scans/b.pdf")
    with pytest.raises(DataError, match="has no text files") as caught:
        find_files("scans", None)
    assert ".pdf: 2" in caught.value.next_step


@POSIX
def test_linked_folders_are_read_once_and_loops_end() -> None:
    touch("real/linked.txt", "texts/own.txt", "texts/z/deep.txt")
    Path("texts/more").symlink_to("../real")
    Path("texts/loop").symlink_to(".")
    Path("texts/again").symlink_to("z")
    Path("texts/copy.txt").symlink_to("own.txt")
    Path("texts/gone.txt").symlink_to("nowhere.txt")
    found = find_files("texts", None)
    assert names(found) == ["more/linked.txt", "own.txt", "z/deep.txt"]
    assert found.passed_over == {
        "linked folders that are read already": 2,
        "links to files that are read already": 1,
        "pipes, devices and broken links": 1,
    }


def test_patterns_match_names_in_either_form() -> None:
    folder = unicodedata.normalize("NFD", "동화")
    touch(f"{folder}/{unicodedata.normalize('NFD', '여우.txt')}", f"{folder}/깊은/곰.txt")
    assert len(find_files("동*/여*.txt", None).paths) == 1
    assert len(find_files("동화/**/*.txt", None).paths) == 2
    found = find_files("동화/*", None)
    assert len(found.paths) == 1
    assert found.passed_over == {"folders": 1}
    with pytest.raises(DataError, match="No file matches"):
        find_files("동화/*.md", None)


@POSIX
def test_a_pipe_is_kept_in_a_file(here: Path) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(b"through a pipe"))
    writer.start()
    found = find_files("pipe", here / "scratch")
    writer.join()
    assert found.copied
    assert [path.read_bytes() for path in found.paths] == [b"through a pipe"]


@POSIX
def test_devices_are_refused() -> None:
    with pytest.raises(DataError, match="is a device"):
        find_files("/dev/zero", None)


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_standard_input_has_two_names(
    source: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"typed")))
    assert find_files(source, here / "scratch").paths[0].read_bytes() == b"typed"


@pytest.mark.parametrize("address", ["https://example.org/a.txt", "http://example.org/a.txt?x=1"])
def test_an_address_is_answered_with_the_command_that_fetches_it(address: str) -> None:
    with pytest.raises(DataError, match="holo reads files, so fetch it first") as caught:
        find_files(address, None)
    assert "curl -L -o a.txt" in caught.value.next_step
    assert "--source a.txt" in caught.value.next_step
