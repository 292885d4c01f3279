"""Comparisons in which something goes wrong: it is told, and makes nobody better or worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holo_cli.bench.compare import run as compare
from holo_cli.bench.compare.page import write_page
from holo_cli.bench.compare.run import best_rates, open_experiment
from holo_cli.bench.compare.summary import costs, summarise, table
from holo_cli.errors import DataError, Stopped, UsageError
from holo_cli.experiment import runs
from holo_cli.experiment.plan import Entry, Plan
from holo_cli.experiment.result_log import ResultLog, rows_path
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.time_estimate import TimeEstimate
from holo_cli.training import precision
from holo_cli.training.stopping import StopRequest
from tests.bench.compare.test_compare import data, go, plan, pretended, runs_of

__all__ = ["data", "plan", "pretended"]  # fixtures


def test_a_run_of_the_sweep_that_breaks_off_says_nothing_about_its_rate(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    monkeypatch.setenv("BREAK", "ngt x1 seed 0")
    experiment, _ = go(plan, page)
    summary = summarise(experiment)
    vanilla, ngt = summary.lines
    assert (vanilla.status, ngt.status, ngt.losses) == ("done", "failed", [])
    assert "broke off at x1; --retry-failed" in ngt.note
    assert "signal 9" in ngt.note
    assert summary.differences == []
    assert any(s.startswith("ngt: failed.") for s in summary.sentences(missing=False))
    assert experiment.left() == 0
    assert go(plan, page)[1] == []
    monkeypatch.delenv("BREAK")
    experiment, _ = go(plan, page, retry_failed=True)
    assert runs_of(experiment, "ngt", "final") == [(4.0, 1), (4.0, 2)]
    assert summarise(experiment).lines[1].status == "done"


@pytest.mark.parametrize("how", ["BREAK", "DIVERGE"])
def test_seeds_that_ended_well_do_not_stand_for_those_that_failed(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv(how, "ngt x4 seed 2")
    page = tmp_path / "page.html"
    experiment, _ = go(replace(plan, seeds=3), page)
    summary = summarise(experiment)
    ngt = summary.lines[1]
    assert ngt.status == "failed in 1 of 3 seeds"
    assert len(ngt.losses) == 2
    assert summary.difference("ngt") is None
    (sentence,) = summary.sentences(missing=False)
    assert sentence.startswith("ngt: failed in 1 of 3 seeds. No verdict is given from")
    columns, rows = table(summary)
    assert rows[1][list(columns).index("verdict")] == "failed in 1 of 3 seeds"
    write_page(experiment, summary, page)
    assert page.read_text(encoding="utf-8").count("failed in 1 of 3 seeds") >= 2


def test_a_sweep_in_which_a_rate_diverges_goes_on(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIVERGE", "ngt x4 seed 0")
    experiment, _ = go(plan, tmp_path / "page.html")
    assert runs_of(experiment, "ngt", "final") == [(2.0, 1), (2.0, 2)]
    assert summarise(experiment).lines[1].status == "done"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.context", 32),
        ("training.batch_size", 4),
        ("training.grad_accum", 2),
        ("training.steps", 40),
        ("training.time_limit", 3.0),
        ("data.document_mask", True),
    ],
)
def test_entries_that_would_see_other_tokens_are_refused(
    plan: Plan, tmp_path: Path, key: str, value: Any
) -> None:
    more = plan.with_entries([Entry("other", "vanilla", settings={key: value})])
    with pytest.raises(UsageError, match=f"vanilla and other would not .* {key} is"):
        open_experiment(more, RunOptions(tmp_path / "page.html"))
    same = replace(plan, base={**plan.base, key: value})
    open_experiment(same, RunOptions(tmp_path / "page.html"))


@pytest.mark.parametrize(
    ("key", "value"), [("training.seed", 3), ("training.eval_every", 3), ("model.vocab_size", 300)]
)
def test_what_a_comparison_sets_itself_is_not_taken(
    plan: Plan, tmp_path: Path, key: str, value: int
) -> None:
    with pytest.raises(UsageError, match=f"{key} is set by the comparison"):
        open_experiment(plan.changed({}, {key: value}), RunOptions(tmp_path / "page.html"))
    entry = Entry("other", "vanilla", settings={key: value})
    with pytest.raises(UsageError, match=f"{key} is set by the comparison"):
        open_experiment(plan.with_entries([entry]), RunOptions(tmp_path / "page.html"))


def test_the_size_to_match_is_the_first_entry_s(plan: Plan, tmp_path: Path) -> None:
    first = Entry("first", "vanilla", settings={"model.width": 48}, match="none")
    experiment = open_experiment(
        replace(plan, entries=(first, *plan.entries)), RunOptions(tmp_path / "page.html")
    )
    assert experiment.target == experiment.described["first"].parameters
    for described in experiment.described.values():
        assert described.parameters == pytest.approx(experiment.target, rel=0.02)


def test_doing_an_entry_again_can_be_stopped(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    options = RunOptions(page, redo=("ngt",))
    stop = StopRequest()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            stop.ask("test")

    with pytest.raises(Stopped) as caught:
        compare.run(open_experiment(plan, options), options, notify=say, stop=stop)
    assert "without --redo" in caught.value.next_step
    assert len(go(plan, page)[1]) == 4  # the other runs of ngt, not all of them, not none


def test_only_running_puts_on_record_that_an_entry_is_done_again(
    plan: Plan, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    before = rows_path(page).read_bytes()
    experiment = open_experiment(plan, RunOptions(page, redo=("ngt",)))  # as --dry-run does
    assert len(experiment.todo()) > 0
    assert rows_path(page).read_bytes() == before


def test_rates_are_those_of_the_newest_campaign_that_settled(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    assert best_rates(page) == {"vanilla": 1.0, "ngt": 4.0}
    # runs of other settings, swept so low that their losses are lower than all before
    longer = plan.changed({"rates": (0.25, 0.5), "extend": 0}, {"training.steps": 400})
    experiment = open_experiment(longer, RunOptions(page))
    sweep = [run for run in experiment.todo() if run.role == "sweep"]
    path = rows_path(page)
    for run in sweep:
        row = next(iter(experiment.rows))
        ResultLog(path, compare.KIND).add(
            {**row, "key": run.key, "entry": run.entry, "role": "sweep", "rate": run.rate,
             "val_loss": 0.1}
        )  # fmt: skip
    assert best_rates(page) == {"vanilla": 1.0, "ngt": 4.0}
    single = plan.with_rates({"vanilla": 2.0, "ngt": 0.5}, "there")
    go(single, tmp_path / "single.html")
    assert best_rates(tmp_path / "single.html") == {"vanilla": 2.0, "ngt": 0.5}


def test_a_row_that_cannot_be_written_costs_no_run(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    options = RunOptions(page)
    with monkeypatch.context() as patch:

        def full(self: ResultLog, row: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(ResultLog, "add", full)
        with pytest.raises(OSError, match="No space"):
            compare.run(open_experiment(plan, options), options, notify=lambda text: None)
    left = [path for path in (tmp_path / "page.work").iterdir() if path.is_dir()]
    assert len(left) == 1  # the run lies there, with what it found, for the next call
    assert len(go(plan, page)[1]) == 11


@pytest.mark.parametrize("name", ["page.jsonl", "page.work"])
def test_a_page_cannot_lie_where_its_rows_do(plan: Plan, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="names the page"):
        open_experiment(plan, RunOptions(tmp_path / name))


def test_runs_of_different_code_or_formats_are_told(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    experiment, _ = go(plan, page)
    assert summarise(experiment).remarks == []
    for i, row in enumerate(list(experiment.rows)):
        experiment.add({**row, "shared_code": "ab"[i % 2], "dtype": "float32"})
    (remark,) = summarise(experiment).remarks
    assert remark.startswith("Runs with 2 versions of the code that all models share")


def test_an_entry_that_keeps_its_size_is_marked_everywhere(plan: Plan, tmp_path: Path) -> None:
    """Twice as wide as the others, without being matched; one that happens to fit is not marked."""
    page = tmp_path / "page.html"
    wide = Entry("wide", "vanilla", settings={"model.width": 64}, match="none")
    fits = Entry("fits", "vanilla", match="none")
    experiment = open_experiment(plan.with_entries([wide, fits]), RunOptions(page))
    summary = summarise(experiment)
    assert [line.matched for line in summary.lines] == [True, True, False, True]
    assert [line.to_dict()["matched"] for line in summary.lines] == [True, True, False, True]
    _, rows = costs(summary, str, str)
    assert [row[1].endswith("*") for row in rows] == [False, False, True, False]
    (remark,) = summary.remarks
    assert remark.startswith("* Not matched in parameters")
    assert "wide (" in remark
    assert "fits" not in remark
    write_page(experiment, summary, page)
    assert "Exceptions, with their own sizes: wide" in page.read_text(encoding="utf-8")
    free = open_experiment(replace(experiment.plan, match="none"), RunOptions(page))
    assert {line.matched for line in summarise(free).lines} == {None}


def test_all_runs_compute_in_one_number_format(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided once, and by the rows where there are some: another machine resumes in theirs."""
    told: list[str] = []
    monkeypatch.setattr(precision, "cpu_is_fast_at_bfloat16", lambda: True)
    experiment = open_experiment(plan, RunOptions(tmp_path / "page.html"))
    assert experiment.dtype == "bfloat16"
    for run in experiment.todo():
        job = runs.training_job(experiment, run)
        told.append(job.settings["resolved"]["config"]["training"]["dtype"])
    assert set(told) == {"bfloat16"}
    ended, _ = go(plan, tmp_path / "page.html")
    for row in list(ended.rows):
        ended.add({**row, "dtype": "float32"})
    assert open_experiment(plan, RunOptions(tmp_path / "page.html")).dtype == "float32"
    # runs to come are measured in that format too, and the reader is told that another is faster
    more = open_experiment(replace(plan, seeds=plan.seeds + 1), RunOptions(tmp_path / "page.html"))
    notes: list[str] = []
    TimeEstimate(more).announce(None, notes.append)
    assert "compute in float32, as the finished ones in page.jsonl do" in notes[0]
    assert "--dtype bfloat16" in notes[0]
    assert more.with_format(more.configs[more.base]).training.dtype == "float32"
    # asked for by name, it is part of what a run is: those rows are of other runs
    named = plan.changed({}, {"training.dtype": "bfloat16"})
    again = open_experiment(named, RunOptions(tmp_path / "page.html"))
    assert again.dtype == "bfloat16"
    assert again.left() > 0
    assert open_experiment(plan, RunOptions(tmp_path / "page.html")).left() == 0


def test_rates_are_chosen_on_one_text_and_losses_reported_on_another(
    plan: Plan, tmp_path: Path
) -> None:
    experiment, _ = go(plan, tmp_path / "page.html")
    assert [r for r in summarise(experiment).remarks if "split" in r] == []
    entry = experiment.entries["vanilla"]
    before = experiment.sweep(entry).best
    assert before == 1.0
    for row in list(experiment.rows):  # the reported text prefers another rate: it must not matter
        lower = {"test_loss": 0.1 if row["rate"] == 0.5 else 9.0, "test_bpb": 1.0}
        experiment.add({**row, "tune_loss": row["val_loss"], **lower})
    again = open_experiment(plan, RunOptions(tmp_path / "page.html"))
    assert again.sweep(entry).best == before
    (line,) = [line for line in summarise(again).lines if line.entry == "vanilla"]
    assert line.losses == [9.0, 9.0]


def test_a_validation_part_too_small_to_be_split_is_refused(plan: Plan, tmp_path: Path) -> None:
    long = plan.changed({}, {"model.context": 2000})
    with pytest.raises(DataError, match=r"too few for a tuning half"):
        open_experiment(long, RunOptions(tmp_path / "page.html"))
