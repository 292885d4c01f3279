"""`holo bench brain` in its smallest form, with processes of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holo_cli.bench.brain import run
from tests.cli.conftest import Holo
from tests.cli.test_bench_compare import prepared
from tests.forked_workers import forked_workers

__all__ = ["forked_workers", "prepared"]  # the fixtures


@pytest.mark.usefixtures("forked_workers")
def test_brain_measures_every_line_once(
    holo: Holo, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "bench", "brain", "--preset", "tiny", "--data", prepared, "--repeats", "1", "--steps", "4",
        "--out", "here/page.html",
    )  # fmt: skip
    left = json.loads(holo(*command, "--dry-run", "--json").out)["left"]
    assert left == {"loss": 2, "recall": 2, "speed": 1}
    ran = holo(*command, "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    lines = {line["what"]: line for line in document["lines"]}
    aims = {what for what, line in lines.items() if line["aim"]}
    assert aims == {"training speed", "memory in training", "decoding speed", "few-shot recall"}
    assert all(line["verdict"] != "not measured" for line in lines.values())
    # one round and one seed decide nothing
    assert lines["training speed"]["verdict"] == lines["few-shot recall"]["verdict"] == "undecided"
    assert lines["parameters"]["verdict"] == "matched"
    assert lines["training speed"]["ratio"]["count"] == 1
    assert document["left"] == {"loss": 0, "recall": 0, "speed": 0}
    for part in ("", "-loss", "-speed", "-recall"):
        assert Path(f"here/page{part}.html").exists()
    rows = Path("here/page.jsonl").read_text(encoding="utf-8")
    again = holo(*command, "--report-only", "--markdown")
    assert "To do: 0 of speed, 0 of training, 0 of recall." in again.err
    assert "| training speed | 3 to 5 times as fast |" in again.out
    assert Path("here/page.jsonl").read_text(encoding="utf-8") == rows
    Path("data").rename("away")  # a report needs the rows alone
    alone = holo(*command, "--report-only", "--markdown")
    assert (alone.code, alone.out) == (0, again.out)
    monkeypatch.setattr(run, "code_fingerprint", lambda name: "another")
    older = holo(*command, "--report-only", "--markdown")
    assert "To do: 1 of speed" in older.err
    assert "| training speed | 3 to 5 times as fast | –" not in older.out
    assert "with other code than today's" in older.out


def test_what_cannot_be_asked(holo: Holo) -> None:
    ran = holo("bench", "brain", "--preset", "huge", "--data", "x")
    assert (ran.code, "There is no plan 'huge' for `holo bench brain`." in ran.err) == (2, True)
    ran = holo("bench", "brain", "--seeds", "0", "--data", "x")
    assert (ran.code, "--seeds must be at least 1, not 0." in ran.err) == (2, True)
