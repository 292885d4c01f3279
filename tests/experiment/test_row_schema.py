"""Stored rows that a page cannot be drawn from are named by line and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.plan import MOST_RUNS, Plan
from holo_cli.experiment.result_log import FORMAT, ResultLog
from holo_cli.experiment.row_schema import fault_of

ROWS = Path(__file__).parents[2] / "docs/results/rows"


def stored(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROWS / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "name",
    ["1m-docs.jsonl", "2026-11-22/1m-docs.jsonl", "controls-small.jsonl", "recall-small.jsonl"],
)
def test_published_rows_are_good(name: str) -> None:
    head, *rows = stored(name)
    assert [fault_of(row, head["bench"]) for row in rows] == [""] * len(rows)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row.update(train_seconds="1.5"), "'train_seconds'"),
        (lambda row: row["curve"][0].pop("val_loss"), "'curve.0.val_loss' is missing"),
        (lambda row: row["curve"].append(None), "'curve."),
        (lambda row: row["curve"][0].update(train_seconds=[1.5]), "'curve.0.train_seconds'"),
        (lambda row: row["train_curve"].append([1, "2"]), "'train_curve."),
        (lambda row: row.pop("date"), "'date' is missing"),
        (lambda row: row.update(machine=[]), "'machine'"),
        (lambda row: row.update(status={}), "'status'"),
        (lambda row: row.update(status="failed"), "'error' is missing"),
        (lambda row: row["config"].update(model=1), "'config.model'"),
        (lambda row: row.update(key=5), "'key'"),
    ],
)
def test_a_damaged_row_is_named(
    change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    row = stored("1m-docs.jsonl")[1]
    change(row)
    path = tmp_path / "page.jsonl"
    lines = [{"bench": "compare", "format": FORMAT}, row]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"Line 2 of .* is damaged") as error:
        ResultLog(path, "compare")
    assert says in error.value.message


@pytest.mark.parametrize("key", ["seeds", "evaluations", "tune", "extend"])
def test_no_number_of_runs_is_absurd(key: str) -> None:
    with pytest.raises(UsageError, match="cannot have"):
        Plan(**{key: MOST_RUNS + 1}).check()  # type: ignore[arg-type]
