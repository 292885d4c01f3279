"""Names that people type, and the names on the disk that they mean."""

from __future__ import annotations

import shlex
import sys
import unicodedata
from pathlib import Path

import pytest

from holo_cli.checkpoint.find import find_checkpoint
from holo_cli.data.dataset import _locate
from holo_cli.errors import DataError
from holo_cli.inference.chat import file_names
from holo_cli.names import existing, expanded, quoted, same_name


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_composed_name_means_a_decomposed_file() -> None:
    Path(decomposed("글/한")).mkdir(parents=True)
    Path(decomposed("글/한/소설.txt")).write_text("하나", encoding="utf-8")
    assert existing("글/한/소설.txt").read_text(encoding="utf-8") == "하나"
    assert existing("글/한/없음.txt") == Path("글/한/없음.txt")
    assert same_name("소설", ["other", decomposed("소설")]) == decomposed("소설")


def test_the_exact_name_comes_first() -> None:
    Path("소설").write_text("composed", encoding="utf-8")
    if Path(decomposed("소설")).exists():
        pytest.skip("this disk does not distinguish the forms")
    Path(decomposed("소설")).write_text("decomposed", encoding="utf-8")
    assert existing("소설").read_text(encoding="utf-8") == "composed"
    assert existing(decomposed("소설")).read_text(encoding="utf-8") == "decomposed"


def test_a_tilde_is_the_home_folder_or_a_letter(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    monkeypatch.setenv("USERPROFILE", str(here / "home"))
    (here / "home").mkdir()
    (here / "home" / "x.txt").touch()
    assert existing("~/x.txt") == here / "home" / "x.txt"
    Path("~draft.txt").touch()
    assert existing("~draft.txt") == Path("~draft.txt")
    if sys.platform != "win32":
        assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_without_a_home_folder_a_tilde_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", fails)
    assert existing("~/x.txt") == Path("~/x.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="the quotes of a POSIX shell")
def test_a_quoted_name_is_one_word_of_the_shell() -> None:
    for name in ("my notes", "it's", 'a"b', "$HOME", "a;b", "~x", "소설 1권", "(x)"):
        assert shlex.split(quoted(name)) == [name]
    assert quoted("소설") == "소설"
    assert quoted("data/a-1.txt") == "data/a-1.txt"
    assert quoted("-x") == "./-x"


def test_sets_runs_and_conversations_are_found_in_the_other_form() -> None:
    Path("data", decomposed("소설")).mkdir(parents=True)
    Path("data", decomposed("소설"), "meta.json").touch()
    assert _locate("소설").name == decomposed("소설")
    Path("checkpoints").mkdir()
    Path("checkpoints", decomposed("밤_last.safetensors")).touch()
    assert find_checkpoint("밤").name == decomposed("밤_last.safetensors")
    Path(decomposed("대화.json")).touch()
    assert file_names.to_read("대화").name == decomposed("대화.json")


def test_a_text_file_is_not_a_set() -> None:
    Path("my text.txt").touch()
    with pytest.raises(DataError, match="is a file, not a prepared set") as caught:
        _locate("my text.txt")
    assert quoted("my text.txt") in caught.value.next_step
    with pytest.raises(DataError, match="no prepared set") as caught:
        _locate("stories")
    assert "holo prepare stories" in caught.value.next_step
