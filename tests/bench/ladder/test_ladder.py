"""A ladder with pretended workers: which runs it makes, how it resumes, what it concludes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from holo_cli.bench.ladder.page import (
    curves_table,
    findings,
    rungs_table,
    to_dict,
    verdict_of,
    write_page,
)
from holo_cli.bench.ladder.plan import Ladder, LadderPlan, open_ladder, read_plan, sizes
from holo_cli.bench.ladder.summary import summarise_ladder
from holo_cli.errors import DataError, Stopped, UsageError
from holo_cli.experiment import runner, worker_pool
from holo_cli.experiment.result_log import ResultLog, rows_path
from holo_cli.experiment.runner import RunOptions, execute
from holo_cli.training.stopping import StopRequest
from tests.bench.ladder.test_plan import LADDER, write
from tests.experiment.experiment_lab import COMMAND, write_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("prepared"))


def pretend(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(worker_pool, "WORKER", COMMAND)
    machine = {"cpu": "a test's", "threads": 1, "date": "today"}
    patch.setattr(runner, "describe_machine", lambda: machine)


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)


@pytest.fixture
def plan(tmp_path: Path, data: Path) -> LadderPlan:
    return read_plan(write(tmp_path, LADDER)).changed({"data": str(data)}, {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The page of a finished ladder of three seeds."""
    folder = tmp_path_factory.mktemp("finished")
    plan = read_plan(write(folder, LADDER)).changed({"data": str(data), "seeds": 3}, {})
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        go(plan, folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def ladder(plan: LadderPlan, finished: Path, tmp_path: Path) -> Ladder:
    """The finished ladder, with rows of its own."""
    page = tmp_path / "finished.html"
    shutil.copy(rows_path(finished), rows_path(page))
    return open_ladder(plan.changed({"seeds": 3}, {}), RunOptions(page))


def go(plan: LadderPlan, page: Path, **options: Any) -> tuple[Ladder, list[str]]:
    said: list[str] = []
    chosen = RunOptions(page, **options)
    ladder = open_ladder(plan, chosen)
    execute(ladder, chosen, notify=said.append)
    return ladder, said


def runs_of(ladder: Ladder, entry: str, rung: str) -> list[tuple[str, float, int]]:
    return [
        (r["role"], r["rate"], r["seed"])
        for r in ladder.rows
        if (r["entry"], r["rung"]) == (entry, rung)
    ]


def test_rates_are_swept_at_the_smallest_rung_and_transferred(ladder: Ladder) -> None:
    """vanilla is best at 1 and ngt at 4, both found beyond the edge of the rates tried."""
    plan = ladder.plan
    sweep = [("sweep", 0.5, 0), ("sweep", 1.0, 0), ("sweep", 2.0, 0), ("sweep", 4.0, 0)]
    assert runs_of(ladder, "ngt", "s") == [*sweep, *(("final", 4.0, s) for s in (1, 2, 3))]
    for rung in ("m", "l"):
        assert runs_of(ladder, "vanilla", rung) == [("final", 1.0, s) for s in (1, 2, 3)]
        assert runs_of(ladder, "ngt", rung) == [("final", 4.0, s) for s in (1, 2, 3)]
    assert len(ladder.rows) == 25
    assert ladder.left() == 0
    for row in ladder.rows:
        size = next(r.parameters for r in plan.rungs if r.name == row["rung"])
        assert row["parameters"] == pytest.approx(size, rel=0.1)
        if row["role"] == "final":
            assert row["config"]["training"]["steps"] == round(size / 128)
        assert row["tokens_per_parameter"] == 1


def test_a_best_rate_at_the_edge_of_its_sweep_is_flagged_where_it_is_used(
    ladder: Ladder, tmp_path: Path
) -> None:
    """ngt's best rate, 4, is the last one that was tried; vanilla's is not."""
    summary = summarise_ladder(ladder)
    ngt, vanilla = (summary.track(name, 1) for name in ("ngt", "vanilla"))
    assert [point.line.note for point in ngt.points] == [
        "the best rate, x4, is the last one tried on its side",
        "the best rate at s, x4, is the last one tried on its side",
        "the best rate at s, x4, is the last one tried on its side",
    ]
    assert not any(point.line.note for point in vanilla.points)
    edge = (
        "the best rate at s, x4, is the last one tried on its side, so a better one may be beyond "
        "it, and m, l use it too"
    )
    assert edge in ngt.notes
    assert not any("last one tried" in note for note in vanilla.notes)
    assert f"ngt: {edge}." in findings(summary)
    page = tmp_path / "edge.html"
    write_page(ladder, summary, page)
    assert "the best rate at s, x4" in page.read_text(encoding="utf-8")


def test_it_resumes_and_does_nothing_twice(plan: LadderPlan, tmp_path: Path) -> None:
    page, stop = tmp_path / "page.html", StopRequest()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 5:
            stop.ask("test")

    with pytest.raises(Stopped, match="runs to do") as caught:
        execute(open_ladder(plan, RunOptions(page)), RunOptions(page), notify=say, stop=stop)
    assert "same command resumes" in caught.value.next_step
    ladder, rest = go(plan, page)
    assert (len(said), len(rest), len(ladder.rows)) == (5, 14, 19)
    assert len(ResultLog(rows_path(page), "ladder")) == 19
    assert go(plan, page)[1] == []
    again = open_ladder(plan, RunOptions(page, redo=("ngt",)))
    assert len(again.forgotten) == 10
    assert {run.entry for run in again.todo()} == {"ngt"}
    with pytest.raises(UsageError, match="no entry 'x'"):
        open_ladder(plan, RunOptions(page, redo=("x",)))


def test_both_gates_are_decided_from_the_rows(ladder: Ladder) -> None:
    """Pretended losses are 2 + 10 / steps and a constant less for ngt: better everywhere, and the
    gap stays."""
    summary = summarise_ladder(ladder)
    (tracks,) = summary.budgets.values()
    ngt = summary.track("ngt", 1)
    assert ngt.rungs_gate == "better"
    assert ngt.against is not None
    assert ngt.against.gate == "better"
    assert ngt.against.ahead == pytest.approx(-0.05, abs=0.02)
    assert ngt.against.at_equal == pytest.approx(-0.05, abs=0.02)
    assert ngt.against.needed < 1
    assert verdict_of(summary, "ngt") == "better"
    (first, *rest) = findings(summary)
    assert first.startswith("ngt is better than vanilla at every rung and by extrapolation.")
    assert "it is better at 3 and worse at 0 of 3 rungs." in first
    assert any("three rungs for three unknowns" in text for text in rest)
    for columns, rows in (rungs_table(tracks, "vanilla"), curves_table(tracks, 4.0)):
        assert all(len(row) == len(columns) for row in rows)
        widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
        assert sum(widths) + 2 * (len(widths) - 1) <= 80
    document = {d["entry"]: d for d in to_dict(summary)}
    assert document["ngt"]["verdict"] == "better"
    assert document["vanilla"]["fit"]["alpha"] == pytest.approx(0.5, abs=0.1)
    assert [r["rung"] for r in document["ngt"]["rungs"]] == ["s", "m", "l"]
    other = summarise_ladder(ladder, "tokens").track("ngt", 1)
    assert other.points[2].x == 16_000 / 128 * 128


def test_an_entry_that_is_not_finished_gets_no_curve(ladder: Ladder, tmp_path: Path) -> None:
    one = open_ladder(ladder.plan.changed({"seeds": 1}, {}), RunOptions(tmp_path / "finished.html"))
    summary = summarise_ladder(one)
    ngt = summary.track("ngt", 1)
    assert ngt.against is not None
    assert (ngt.rungs_gate, ngt.against.gate, ngt.against.gap) == ("not known",) * 3
    assert any("one seed has no spread" in text for text in findings(summary))
    row = next(r for r in one.rows if (r["entry"], r["rung"], r["role"]) == ("ngt", "l", "final"))
    failed = {**row, "status": "failed", "error": "out of memory", "kind": "crash"}
    next(c for c in one.experiments.values() if c.rung.name == "l").add(failed)
    summary = summarise_ladder(one)
    assert summary.track("ngt", 1).against is None
    assert verdict_of(summary, "ngt") == "not known"
    assert any("no curve: l not finished or failed" in text for text in findings(summary))
    assert one.todo() == []
    one.forget(failed=True)
    assert [run.label() for run in one.todo()] == [
        "ngt, l at 1 tokens/parameter, rate x4, final seed 1"
    ]


def test_the_page_has_curves_and_tables(ladder: Ladder, plan: LadderPlan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    empty = open_ladder(plan, RunOptions(page))
    write_page(empty, summarise_ladder(empty), page)
    assert 'data-kind="picture"' not in page.read_text(encoding="utf-8")
    write_page(ladder, summarise_ladder(ladder), page)
    text = page.read_text(encoding="utf-8")
    for title in ("1 tokens per parameter", "Gate 1: at every rung", "Gate 2: by extrapolation"):
        assert f"<h2>{title}</h2>" in text
    assert "vanilla: extrapolation" in text
    assert "m uses the rates of s" in text


def test_a_short_text_is_read_several_times_and_that_is_said(
    plan: LadderPlan, tmp_path: Path
) -> None:
    ladder = open_ladder(plan, RunOptions(tmp_path / "page.html"))
    largest = sizes(ladder)[-1]
    assert largest["epochs"] == pytest.approx(largest["tokens"] / ladder.data.token_count("train"))
    assert largest["epochs"] > 1
    (remark,) = summarise_ladder(ladder).remarks
    assert f"read it up to {largest['epochs']:.1f} times" in remark


def test_rows_of_a_newer_format_and_of_other_benches_are_refused(
    plan: LadderPlan, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    rows_path(page).write_text('{"bench": "ladder", "format": 99}\n', encoding="utf-8")
    with pytest.raises(DataError, match="format 99"):
        open_ladder(plan, RunOptions(page))
    rows_path(page).write_text('{"bench": "compare", "format": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="holo bench compare"):
        open_ladder(plan, RunOptions(page))


def test_a_size_that_cannot_be_met_names_its_rung(plan: LadderPlan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Rung s: Entry vanilla: vanilla cannot have 4,000"):
        open_ladder(plan.changed({"tolerance": 0.0001}, {}), RunOptions(tmp_path / "p.html"))
