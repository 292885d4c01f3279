"""What is said about a set that was prepared."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from holo_cli.data.prepare.prepare import PrepareResult, prepare


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(name: str, text: str, **options: object) -> PrepareResult:
    Path(name).write_text(text, encoding="utf-8")
    return prepare([], source=name, **options)  # type: ignore[arg-type]


def stories(count: int) -> str:
    chosen = random.Random(0)
    words = ["river", "fox", "lamp", "rain", "hill", "song", "boat", "moon", "door", "stone"]
    return "\n\n\n".join(
        f"{n} " + " ".join(chosen.choices(words, k=20)) + "." for n in range(count)
    )


def test_a_set_too_small_to_train_on_is_said_so() -> None:
    result = prepared("small.txt", "Once. " * 20, tokenizer="char")
    assert result.tokens["train"] <= 128
    assert "too small to train on" in result.warnings[0]


def test_a_vocabulary_too_large_gets_one_that_fits() -> None:
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(300)]
    text = "\n\n\n".join(" ".join(letters.choices(words, k=30)) for _ in range(60))
    result = prepared("text.txt", text, vocab_size=8192)
    (warning,) = result.warnings
    assert "--vocab-size 320 --force" in warning
    assert not prepared("other.txt", stories(200), vocab_size=300).warnings


def test_almost_everything_dropped_is_a_warning_with_the_counts() -> None:
    rows = [json.dumps({"text": f"Tale {n}. " * 30}) for n in range(6)] + ["not a row"] * 60
    result = prepared("rows.jsonl", "\n".join(rows), tokenizer="char")
    (warning,) = result.warnings
    assert warning == "Almost everything was dropped: 60 of 66 documents (bad lines: 60)."


def test_one_text_in_pieces_on_both_sides_of_the_split_is_explained() -> None:
    result = prepared("novel.txt", "A line of a novel that goes on.\n" * 3000, vocab_size=300)
    (note,) = result.notes
    assert note.startswith("novel.txt is one text")
    assert "both splits have pieces of it" in note
    assert not prepared("list.txt", stories(60), vocab_size=300).notes


def test_what_a_folder_passed_over_is_in_the_result_and_in_meta() -> None:
    Path("texts").mkdir()
    Path("texts/a.txt").write_text(stories(40), encoding="utf-8")
    Path("texts/b.pdf").touch()
    result = prepare([], source="texts", vocab_size=300)
    assert result.to_dict()["passed_over"] == {".pdf": 1}
    meta = json.loads(Path("data/texts/meta.json").read_text(encoding="utf-8"))
    assert meta["sources"][0]["passed_over"] == {".pdf": 1}
