"""Raw rows: appended, newest wins, a torn line is passed over, strangers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.result_log import FORMAT, ResultLog, key_of, rows_path


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.jsonl"
    rows = ResultLog(path, "compare")
    rows.add({"key": "a", "x": "가나"})
    rows.add({"key": "b", "x": 1})
    rows.add({"key": "a", "x": 2})
    again = ResultLog(path, "compare")
    assert list(again) == [{"key": "a", "x": 2}, {"key": "b", "x": 1}]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4  # nothing is overwritten
    again.forget("a")
    assert again.get("a") is None
    assert ResultLog(path, "compare").get("a") is not None


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "page.jsonl"
    rows = ResultLog(path, "compare")
    rows.add({"key": "a"})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "b", "val_lo')
    torn = ResultLog(path, "compare")
    assert len(torn) == 1
    torn.add({"key": "c"})
    assert [row["key"] for row in ResultLog(path, "compare")] == ["a", "c"]


def test_a_cut_inside_a_letter_and_line_ends_of_unicode_cost_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.jsonl"
    rows = ResultLog(path, "compare")
    rows.add({"key": "a", "error": "one\u2028two\x85three"})
    rows.add({"key": "b", "error": "노"})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("노".encode()) + 1])
    torn = ResultLog(path, "compare")
    assert [row["error"] for row in torn] == ["one\u2028two\x85three"]
    torn.add({"key": "c"})
    assert [row["key"] for row in ResultLog(path, "compare")] == ["a", "c"]


def test_a_tombstone_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "page.jsonl"
    rows = ResultLog(path, "compare")
    rows.add({"key": "a", "x": 1})
    rows.tombstone("a")
    assert rows.get("a") is None
    assert ResultLog(path, "compare").get("a") is None
    assert b'"x": 1' in path.read_bytes()  # the first answer stays on record
    rows.add({"key": "a", "x": 2})
    assert list(ResultLog(path, "compare")) == [{"key": "a", "x": 2}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps({"bench": "recall", "format": FORMAT}) + "\n", "holo bench recall"),
        (json.dumps({"bench": "compare", "format": 99}) + "\n", "format 99"),
        ("model,loss\nngt,1.0\n", "not a file of bench rows"),
        ('{"event": "train"}\n', "not a file of bench rows"),
    ],
)
def test_files_of_others_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "page.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        ResultLog(path, "compare")
    assert "--out" in caught.value.next_step
    assert path.read_text(encoding="utf-8") == text


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.jsonl"
    path.write_bytes(b"\x80\x81\xff\x00")
    with pytest.raises(DataError, match="not a file of bench rows"):
        ResultLog(path, "compare")


def test_keys_depend_on_settings_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert rows_path(Path("bench/x.html")) == Path("bench/x.jsonl")
    assert rows_path(Path("bench/run.v1")) == Path("bench/run.v1.jsonl")
    with pytest.raises(UsageError, match="names the page"):
        rows_path(Path("x.jsonl"))
