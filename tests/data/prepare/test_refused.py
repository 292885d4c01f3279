"""Invalid requests raise one sentence and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holo_cli.data.files import locked
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import DataError, HoloError, UsageError


def test_two_preparations_of_one_folder(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    with locked(out), pytest.raises(DataError, match="Another process is preparing"):
        prepare(source=str(source), out=out, tokenizer="char")
    with locked(out):  # free again
        pass
    prepare(source=str(source), out=out, tokenizer="char")


def test_a_folder_that_cannot_be_made(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="could not be written"):
        prepare(source=str(source), out=tmp_path / "file" / "set", tokenizer="char")


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"names": []}, UsageError, "nothing to prepare"),
        ({"names": ["storys"]}, UsageError, "Did you mean 'stories'"),
        ({"names": ["../x"], "source": "x"}, UsageError, "cannot be the name"),
        ({"names": ["a", "b"], "source": "x"}, UsageError, "one name"),
        ({"names": ["stories"], "val_fraction": 0}, UsageError, "not between 0 and 1"),
        ({"names": ["stories"], "lang": ["korean"]}, UsageError, "not a language code"),
        ({"names": ["stories"], "lang": ["fr"]}, UsageError, "no stories in 'fr'"),
        ({"names": ["stories"], "max_docs": 0}, UsageError, "--max-docs"),
        ({"names": ["stories"], "tokenizer": "bqe"}, UsageError, "Did you mean 'bpe'"),
        ({"names": ["stories"], "workers": 0}, UsageError, "--workers"),
        ({"source": "missing.txt"}, DataError, "no file or folder"),
        ({"names": ["stories"], "vocab_size": 99, "max_docs": 9}, UsageError, "--vocab-size"),
    ],
)
def test_wrong_requests_leave_nothing_behind(
    settings: dict[str, Any],
    kind: type[HoloError],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=says) as caught:
        prepare(**settings)
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "\n\n  \n", "There is no text in"),
        ("a.jsonl", "{\n{\n", "neither valid JSON nor JSON lines"),
        ("a.txt", "x", "too short"),
    ],
)
def test_sources_without_text(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        prepare(source=str(tmp_path / name), out=tmp_path / "set")
    assert not (tmp_path / "set").exists()
