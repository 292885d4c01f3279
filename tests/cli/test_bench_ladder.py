"""`holo bench ladder` in its smallest form, with processes of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Holo
from tests.cli.test_bench_compare import prepared
from tests.forked_workers import forked_workers

__all__ = ["forked_workers", "prepared"]  # the fixtures


@pytest.mark.usefixtures("forked_workers", "prepared")
def test_a_whole_ladder(holo: Holo) -> None:
    ran = holo("bench", "ladder", "--preset", "tiny", "--json", "--out", "page.html")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert set(document) == {
        "title", "data", "axis", "ahead", "entries", "findings", "rows", "machine", "page",
        "bytes", "rows_file",
    }  # fmt: skip
    vanilla, ngt = document["entries"]
    assert (vanilla["entry"], ngt["entry"]) == ("vanilla", "ngt")
    losses = [rung["val_loss"] for rung in vanilla["rungs"]]
    assert losses[-1] < losses[0]  # a larger model with more tokens learns more
    assert len(document["rows"]) == 12
    assert all(row["status"] == "done" for row in document["rows"])
    assert Path("page.html").exists()
    assert not Path("page.work").exists()
    again = holo("bench", "ladder", "--preset", "tiny", "--report-only", "--out", "page.html")
    assert "tokens per parameter" in again.out
    Path("data").rename("away")  # a report needs the rows alone
    alone = holo("bench", "ladder", "--preset", "tiny", "--report-only", "--out", "page.html")
    assert (alone.code, alone.out) == (0, again.out)
    assert all(len(line) <= 80 for line in again.out.partition("\n\nngt ")[0].splitlines())
    marked = holo("bench", "ladder", "--preset", "tiny", "--report-only", "--markdown", "--out",
                  "page.html")  # fmt: skip
    assert "| rung" in marked.out
    assert "Machine: " in marked.out


@pytest.mark.usefixtures("prepared")
def test_a_dry_run_shows_sizes_and_leaves_nothing(holo: Holo) -> None:
    ran = holo("bench", "ladder", "--preset", "tiny", "--dry-run", "--budgets", "1,3", "--seeds",
               "5", "--set", "training.batch_size=8")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "300k" in ran.out
    assert "epochs" in ran.err
    assert "About 60 runs to do" in ran.err
    assert not Path("bench").exists()


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--models", "vanila"], "no model 'vanila'"),
        (["--axis", "time"], "no axis 'time'"),
        (["--budgets", "a"], "not numbers"),
        (["--preset", "tny"], "no plan 'tny'"),
        (["--set", "training.steps=3"], "training.steps is set by the ladder itself"),
    ],
)
def test_bad_input_is_told_in_a_sentence(holo: Holo, arguments: list[str], says: str) -> None:
    preset = [] if "--preset" in arguments else ["--preset", "tiny"]
    ran = holo("bench", "ladder", *preset, *arguments)
    assert ran.code == 2
    assert says in ran.err
