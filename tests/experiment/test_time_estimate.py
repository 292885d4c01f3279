"""How long a comparison takes: from a measurement, then from its own rows, never invented."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from holo_cli.bench.compare import run as compare
from holo_cli.bench.compare.run import open_experiment
from holo_cli.errors import UsageError
from holo_cli.experiment import runner, time_estimate
from holo_cli.experiment.plan import Entry, Plan, named_plan, read_plan
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.time_estimate import TimeEstimate, minutes
from holo_cli.training.calibrate import seconds_of
from tests.bench.compare.test_compare import data, go, plan, pretended

__all__ = ["data", "plan", "pretended"]  # fixtures
SEVEN = (
    "vanilla", "holographic", "holographic-blend", "ngt", "brain-v1", "brain-v2", "textbook",
)  # fmt: skip


@pytest.fixture
def long(plan: Plan) -> Plan:
    """Runs long enough to be measured first."""
    return plan.changed({}, {"training.steps": 1000})


@pytest.mark.parametrize("name", ["1m", "1m-bpe"])
def test_the_main_entries_run_unless_others_are_named(name: str) -> None:
    whole = named_plan(name)
    assert tuple(e.name for e in whole.selected(None).entries) == SEVEN
    assert len(whole.selected(["all"]).entries) == len(whole.entries) > 7
    assert [e.name for e in whole.selected(["ngt-4", "ngt"] if name == "1m" else ["ngt"]).entries]
    more = [Entry("x", "ngt")]
    assert tuple(e.name for e in whole.selected(None, more).entries) == (*SEVEN, "x")
    assert [e.name for e in whole.selected(["vanilla"], more).entries] == ["vanilla", "x"]


def test_a_main_entry_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('main = ["ngt", "vanila"]\n[entry.ngt]\n[entry.vanilla]\n', encoding="utf-8")
    with pytest.raises(UsageError, match="main names 'vanila'"):
        read_plan(path)


def test_what_no_row_tells_is_measured_and_divided_by_the_jobs(long: Plan, tmp_path: Path) -> None:
    """Two entries: two sweep runs of 500 steps and two final ones of 1,000 each, at 0.5 s a step
    and 2 s an evaluation (one in the sweep, two in a final run)."""
    page = tmp_path / "page.html"
    expected = TimeEstimate(open_experiment(long, RunOptions(page, jobs=2)), 2)
    said: list[str] = []
    assert expected.seconds() is None
    assert expected.unknown() == ["vanilla", "ngt"]
    expected.announce(None, said.append)
    assert "is not known: there is no finished run on this machine" in said[-1]
    stop = compare.StopRequest()
    expected.announce(lambda: expected.measure(tmp_path / "w", stop), said.append)
    seconds = expected.seconds()
    assert seconds is not None
    alone = 2 * (2 * (250 + 2) + 2 * (500 + 4))
    start = expected.measured["vanilla"].start + expected.measured["ngt"].start
    assert seconds == pytest.approx((alone + 4 * start) / 2)
    assert "about 26 minutes (8 runs, 2 at a time; by a short measurement" in said[-1]
    assert not (tmp_path / "w").exists()


def test_finished_rows_tell_the_time_left(
    long: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pretended runs take 0.1 s a step and 0.1 s for their evaluations."""
    monkeypatch.setattr(time_estimate, "cpu_name", lambda: "a test's")
    monkeypatch.setattr(time_estimate, "_threads", lambda jobs: 1)
    machine = {"cpu": "a test's", "threads": 1, "cores": os.cpu_count()}
    monkeypatch.setattr(runner, "describe_machine", lambda: machine)
    page = tmp_path / "page.html"
    _, said = go(long, page)
    assert said[0].endswith("(7 runs left)")  # what ngt costs is not known yet
    assert said[1].endswith("(6 runs left, about 9 minutes)")  # 2 x 50 s and 4 x 100 s
    assert said[-1].endswith("(0 runs left)")
    more = open_experiment(replace(long, seeds=3), RunOptions(page))
    expected = TimeEstimate(more)
    cost = expected.cost("ngt")
    assert cost is not None
    assert cost.step == pytest.approx(0.1)
    assert expected.seconds() == pytest.approx(2 * 100.0, rel=0.05)  # a seed of each
    monkeypatch.setattr(time_estimate, "_threads", lambda jobs: 8)  # rows of another setting
    assert expected.seconds() is None


def test_short_runs_are_not_measured_first(plan: Plan, tmp_path: Path) -> None:
    said: list[str] = []
    experiment = open_experiment(plan, RunOptions(tmp_path / "page.html"))
    compare.run(experiment, RunOptions(tmp_path / "page.html"), notify=said.append, estimate=True)
    assert said[0].startswith("Runs of at most 100 steps are not measured")
    assert len(said) == 12


def test_steps_and_evaluations_are_timed(plan: Plan, tmp_path: Path) -> None:
    experiment = open_experiment(plan, RunOptions(tmp_path / "page.html"))
    step, evaluation = seconds_of(experiment.configs["vanilla"])
    assert 0 < step < 10
    assert 0 < evaluation < 60


def test_durations_are_as_precise_as_an_estimate() -> None:
    assert [minutes(s) for s in (3, 61, 3600, 9000)] == [
        "1 minute", "2 minutes", "60 minutes", "2.5 hours",
    ]  # fmt: skip
