"""An experiment: what it runs, in which order, how it goes on, and what it says in the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holo_cli.bench.compare import run as compare
from holo_cli.bench.compare.page import write_page
from holo_cli.bench.compare.run import best_rates, open_experiment
from holo_cli.bench.compare.summary import summarise, table
from holo_cli.errors import DataError, Stopped, UsageError
from holo_cli.experiment import runner, worker, worker_pool
from holo_cli.experiment.code_fingerprint import code_fingerprint
from holo_cli.experiment.entries import resolve_entry
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import Entry, Plan, read_plan
from holo_cli.experiment.result_log import ResultLog, rows_path
from holo_cli.experiment.runner import RunOptions
from holo_cli.training.run import train
from holo_cli.training.stopping import StopRequest
from tests.experiment.experiment_lab import COMMAND, PLAN, write_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "WORKER", COMMAND)
    monkeypatch.setattr(
        runner, "describe_machine", lambda: {"cpu": "a test's", "threads": 1, "date": "today"}
    )


@pytest.fixture
def plan(tmp_path: Path, data: Path) -> Plan:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return read_plan(path).changed({"data": str(data)})


def go(plan: Plan, page: Path, **options: Any) -> tuple[Experiment, list[str]]:
    """Run a plan to its end; the experiment and what was said."""
    said: list[str] = []
    chosen = RunOptions(page, **options)
    experiment = open_experiment(plan, chosen)
    compare.run(experiment, chosen, notify=said.append)
    return experiment, said


def runs_of(experiment: Experiment, entry: str, role: str) -> list[tuple[float, int]]:
    return [(r["rate"], r["seed"]) for r in experiment.rows
            if (r["entry"], r["role"]) == (entry, role)]  # fmt: skip


def test_sweeps_go_past_an_edge_that_is_best_and_seeds_follow(plan: Plan, tmp_path: Path) -> None:
    """vanilla is best at 1 (tried: 0.5, 1, then 2 beyond the edge), ngt at 4."""
    experiment, said = go(plan, tmp_path / "page.html")
    assert runs_of(experiment, "vanilla", "sweep") == [(0.5, 0), (1.0, 0), (2.0, 0)]
    assert runs_of(experiment, "vanilla", "final") == [(1.0, 1), (1.0, 2)]
    assert runs_of(experiment, "ngt", "sweep") == [(0.5, 0), (1.0, 0), (2.0, 0), (4.0, 0)]
    assert runs_of(experiment, "ngt", "final") == [(4.0, 1), (4.0, 2)]
    assert len(said) == len(experiment.rows) == 11
    assert experiment.sweep(experiment.entries["ngt"]).at_edge  # and that is said in the summary
    assert not experiment.sweep(experiment.entries["vanilla"]).at_edge
    assert best_rates(tmp_path / "page.html") == {"vanilla": 1.0, "ngt": 4.0}


def test_everything_but_the_model_is_equal(plan: Plan, tmp_path: Path) -> None:
    experiment, _ = go(plan, tmp_path / "page.html")
    final_runs = [row for row in experiment.rows if row["role"] == "final"]
    mine = ("lr", "adam_lr", "seed")
    shared = [
        {k: v for k, v in r["config"]["training"].items() if k not in mine} for r in final_runs
    ]
    assert all(s == shared[0] for s in shared)
    assert {r["config"]["training"]["seed"] for r in final_runs} == {1, 2}
    for row in final_runs:
        assert row["config"]["training"]["adam_lr"] == pytest.approx(0.003 * row["rate"])
        assert row["config"]["model"]["context"] == 16
        assert abs(row["parameters"] - experiment.target) <= 0.02 * experiment.target
        assert row["machine"]["cpu"] == "a test's"
        assert row["code"]
        assert row["date"]
    sweep = next(row for row in experiment.rows if row["role"] == "sweep")
    assert sweep["config"]["training"]["steps"] == 10  # half of them, to the end of its schedule


def test_a_second_call_does_nothing_again(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    before = rows_path(page).read_bytes()
    _, said = go(plan, page)
    assert said == []
    assert rows_path(page).read_bytes() == before
    assert not page.with_suffix(".work").exists()


def test_a_stopped_campaign_goes_on_where_it_was(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    stop = StopRequest()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 4:
            stop.ask("test")

    experiment = open_experiment(plan, RunOptions(page))
    with pytest.raises(Stopped, match="runs to do") as caught:
        compare.run(experiment, RunOptions(page), notify=say, stop=stop)
    assert "same command" in caught.value.next_step
    _, rest = go(plan, page)
    assert (len(said), len(rest)) == (4, 7)
    whole, _ = go(plan, tmp_path / "other.html")
    losses = {row["key"]: row["val_loss"] for row in whole.rows}
    assert losses == {row["key"]: row["val_loss"] for row in ResultLog(rows_path(page), "compare")}


def test_more_seeds_and_more_entries_add_to_what_is_there(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    _, said = go(replace(plan, seeds=3), page)
    assert [text.partition(":")[0] for text in said] == [
        "vanilla, rate x1, final seed 3", "ngt, rate x4, final seed 3",
    ]  # fmt: skip


def test_other_seeds_confirm_a_result_without_a_new_sweep(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    before, _ = go(plan, page)
    keys = [row["key"] for row in before.rows]
    assert go(replace(plan, first_seed=1), page)[1] == []  # the default: existing rows count
    fresh, said = go(replace(plan, first_seed=11, seeds=3), page)
    assert len(said) == 2 * 3  # the sweeps are there
    assert [row["key"] for row in fresh.rows][: len(keys)] == keys
    summary = summarise(fresh)
    for line in summary.lines:
        assert list(line.by_seed()) == [11, 12, 13]  # none of the seeds before
    write_page(fresh, summary, page)
    assert "seeds 11 to 13" in page.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="cannot have first_seed 0"):  # the sweep's
        replace(plan, first_seed=0).check()


def test_a_model_that_fails_has_rows_that_say_so_and_the_others_go_on(
    plan: Plan, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    more = [
        Entry("broken", "ngt", settings={"model.kernel": "lorentz"}),
        Entry("wild", "ngt", settings={"model.kernel": "gaussian"}),
    ]
    experiment, said = go(plan.with_entries(more), page)
    summary = summarise(experiment)
    broken, wild = summary.lines[2:]
    assert (broken.status, broken.losses) == ("failed", [])
    assert "diverged at step 3" in broken.note
    assert runs_of(experiment, "broken", "final") == []
    # a rate that fails is a rate that is not the best, and no way to go on
    assert (wild.status, wild.rate, len(wild.losses)) == ("done", 1.0, 2)
    assert summary.lines[0].status == "done"
    assert any("broken, rate x0.5, sweep seed 0: failed" in text for text in said)
    assert go(plan.with_entries(more), page)[1] == []  # failed is finished
    again = go(plan.with_entries(more), page, retry_failed=True)[1]
    assert len(again) == 3
    assert any("broken" in text for text in summary.sentences())


def test_an_entry_can_be_done_again(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    assert len(go(plan, page, redo=("ngt",))[1]) == 6
    twin = plan.with_entries([Entry("twin", "ngt")])  # another name for the same runs
    assert go(twin, page)[1] == []
    assert len(go(twin, page, redo=("twin",))[1]) == 6
    with pytest.raises(UsageError, match="no entry 'x'"):
        open_experiment(plan, RunOptions(page, redo=("x",)))


def test_runs_go_side_by_side_to_the_same_rows(plan: Plan, tmp_path: Path) -> None:
    one, _ = go(plan, tmp_path / "one.html")
    two, _ = go(plan, tmp_path / "two.html", jobs=3)
    assert {r["key"]: r["val_loss"] for r in one.rows} == {
        r["key"]: r["val_loss"] for r in two.rows
    }


def test_a_single_rate_needs_no_sweep(plan: Plan, tmp_path: Path) -> None:
    experiment, _ = go(plan.with_rates({"vanilla": 1.0, "ngt": 2.0}, "there"), tmp_path / "p.html")
    assert {row["role"] for row in experiment.rows} == {"final"}
    assert runs_of(experiment, "ngt", "final") == [(2.0, 1), (2.0, 2)]
    with pytest.raises(UsageError, match="there has no best rate for 'ngt'"):
        plan.with_rates({"vanilla": 1.0}, "there")


def test_matching_by_time_sets_steps_by_measured_speed(plan: Plan, tmp_path: Path) -> None:
    timed = replace(plan, match="time", seconds=9.0)
    experiment, _ = go(timed, tmp_path / "page.html")
    steps = {row["entry"]: row["steps"] for row in experiment.rows if row["role"] == "final"}
    assert steps == {"vanilla": 40, "ngt": 20}
    assert sum(row["role"] == "pace" for row in experiment.rows) == 6
    again = open_experiment(timed, RunOptions(tmp_path / "page.html"))  # its rows can be read
    assert again.todo() == []
    for row in experiment.rows:  # every schedule reaches its end
        if row["role"] == "final":
            assert row["config"]["training"]["steps"] == row["steps"]
            assert row["config"]["training"]["time_limit"] is None


def test_rows_alone_make_the_same_report(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    experiment, _ = go(plan, page)
    told = summarise(experiment).sentences()
    monkeypatch.chdir(tmp_path)
    elsewhere = plan.changed({"data": experiment.data.name})  # no such folder here
    with pytest.raises(DataError, match="no prepared set 'words'"):
        open_experiment(elsewhere, RunOptions(page))
    stored = open_experiment(elsewhere, RunOptions(page, report_only=True))
    assert stored.todo() == []
    assert table(summarise(stored)) == table(summarise(experiment))
    assert summarise(stored).sentences() == told
    assert stored.data.token_count("train") == experiment.data.token_count("train")
    assert write_page(stored, summarise(stored), page) > 1000


def test_why_an_entry_with_rows_is_not_reported(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    go(plan, page)
    changed = plan.changed({}, {"training.weight_decay": 0.5})
    found = summarise(open_experiment(changed, RunOptions(page))).sentences()
    other = "Finished runs of this name with other settings or seeds, not used: 2"
    assert f"ngt: not run. {other}" in found


def test_the_findings_are_those_of_the_rows(plan: Plan, tmp_path: Path) -> None:
    experiment, _ = go(replace(plan, seeds=3), tmp_path / "page.html")
    summary = summarise(experiment)
    vanilla, ngt = summary.lines
    rows = [r for r in experiment.rows if (r["entry"], r["role"]) == ("ngt", "final")]
    assert ngt.losses == [row["val_loss"] for row in rows]
    assert ngt.loss == pytest.approx(sum(ngt.losses) / 3)
    difference = summary.difference("ngt")
    assert difference is not None
    assert difference.verdict == "better"
    assert difference.value == pytest.approx((ngt.loss or 0) - (vanilla.loss or 0))
    columns, shown = table(summary)
    assert "vs vanilla" in columns
    assert all(len(row) == len(columns) for row in shown)
    assert "better" in shown[1]


def test_the_page_shows_all_and_invents_nothing(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    experiment = open_experiment(plan, RunOptions(page))
    write_page(experiment, summarise(experiment), page)
    empty = page.read_text(encoding="utf-8")
    assert "not run" in empty
    assert 'data-kind="picture"' not in empty  # nothing to draw
    experiment, _ = go(plan, page)
    assert write_page(experiment, summarise(experiment), page) < 6_000_000
    text = page.read_text(encoding="utf-8")
    for title in (
        "Results",
        "Size, time and memory",
        "Loss by tokens",
        "Loss by time",
        "Every run",
    ):
        assert f"<h2>{title}</h2>" in text
    assert text.count('data-kind="picture"') == 4
    assert ">not run<" not in text
    for row in experiment.rows:  # every loss can be read as text, with four digits
        assert f"{float(format(row['val_loss'], '.4g')):.10g}" in text


def test_only_settings_that_differ_from_the_defaults_are_told(plan: Plan, tmp_path: Path) -> None:
    entries = (
        Entry("plain", "brain-v1"),
        Entry("free", "brain-v1", settings={"model.sparsity": "kwta"}),
    )
    experiment = open_experiment(
        replace(plan, entries=entries, match="none"), RunOptions(tmp_path / "p")
    )
    plain, free = (line.settings for line in summarise(experiment).lines)
    assert free == {**plain, "sparsity": "kwta"}
    assert not {"languages", "growth", "language_tokens"} & plain.keys()  # lists in JSON


def test_what_cannot_be_compared_is_said_before_anything_runs(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(DataError, match="a context of 90000"):
        open_experiment(plan.changed({}, {"model.context": 90_000}), RunOptions(page))
    with pytest.raises(UsageError, match="Entry ngt: ngt cannot have"):
        open_experiment(replace(plan, target=20_000, vary=("model.width",)), RunOptions(page))
    with pytest.raises(DataError, match="no prepared set 'nothing'"):
        open_experiment(plan.changed({"data": "nothing"}), RunOptions(page))
    rows_path(page).write_text('{"bench": "compare", "format": 99}\n', encoding="utf-8")
    with pytest.raises(DataError, match="format 99"):
        open_experiment(plan, RunOptions(page))


def test_an_empty_validation_text_is_refused(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.data.dataset import PreparedData

    monkeypatch.setattr(PreparedData, "token_count", lambda self, split: 0)
    with pytest.raises(DataError, match="no validation text"):
        open_experiment(plan, RunOptions(tmp_path / "page.html"))


# -- the real worker ------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_to_the_same_bits(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = resolve_entry(plan, plan.entries[0], Path(plan.data))
    resolved = resolved.replace({"training.eval_every": 10, "training.dtype": "float32"})
    job = {"task": "train", "resolved": resolved.to_dict()}
    results = []
    for name, stop_at in (("whole", None), ("stopped", 7)):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        if stop_at is not None:
            worker.CODE.write_text(
                code_fingerprint("vanilla"), encoding="utf-8"
            )  # as the worker does
            with pytest.raises(Stopped):
                train(resolved, run=worker.RUN, events=lambda e: None, stop_at=stop_at)
        results.append(worker.train(job))
    whole, stopped = results
    assert (whole["resumed"], stopped["resumed"]) == (False, True)
    assert whole["val_loss"] == stopped["val_loss"]
    assert whole["steps"] == stopped["steps"] == 20
    losses = [[point["val_loss"] for point in r["curve"]] for r in results]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
    with pytest.raises(Stopped):
        train(resolved, run=worker.RUN, events=lambda e: None, stop_at=7, force=True)
    worker.CODE.write_text("another", encoding="utf-8")  # half of one code is no run of the other
    anew = worker.train(job)
    assert (anew["resumed"], anew["val_loss"]) == (False, whole["val_loss"])
    assert (anew["device"], anew["dtype"]) == ("cpu", "float32")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"start", "train", "eval", "done"} <= {event["event"] for event in told}


def test_the_worker_tells_an_error_of_holo_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plan: Plan
) -> None:
    import io
    import sys

    resolved = resolve_entry(plan, plan.entries[0], tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    job = json.dumps({"task": "train", "resolved": resolved.to_dict()})
    monkeypatch.setattr(sys, "stdin", io.StringIO(job))
    assert worker.main() == 1
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "failed"
    assert event["kind"] == "DataError"
    assert "no prepared set" in event["error"]
