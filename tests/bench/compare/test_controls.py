"""Controls with made-up differences and pretended workers: shares are what the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holo_cli.bench.compare.controls import (
    INIT_SEED_OFFSET,
    PLACEBO,
    Controls,
    ControlsPlan,
    named_plan,
    open_controls,
    read_plan,
)
from holo_cli.bench.compare.controls_report import (
    findings,
    placebo,
    summarise_controls,
    table,
    write_page,
)
from holo_cli.errors import DataError, UsageError
from holo_cli.experiment import runner, worker_pool
from holo_cli.experiment.plan import plan_names
from holo_cli.experiment.runner import RunOptions, execute
from tests.experiment.experiment_lab import COMMAND, write_set

PLAN = """
rates = [1.0]
evaluations = 1
campaigns = 3
campaign_seeds = 2
planted_seeds = 4
found_with = [2, 3]
helps = ["good"]
hurts = ["bad"]
[base.model]
layers = 1
heads = 2
width = 32
context = 16
[base.training]
steps = 20
batch_size = 8
[entry.vanilla]
model = "vanilla"
[entry.good]
model = "vanilla"
set = { conv = 4 }
[entry.bad]
model = "vanilla"
rates = [8.0]
"""


def read(folder: Path, text: str = PLAN) -> ControlsPlan:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return read_plan(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def controls(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Controls:
    monkeypatch.setattr(worker_pool, "WORKER", COMMAND)
    machine = {"cpu": "a test's", "threads": 1, "date": "today"}
    monkeypatch.setattr(runner, "describe_machine", lambda: machine)
    plan = read(tmp_path).changed({"data": str(data)}, {})
    return open_controls(plan, RunOptions(tmp_path / "page.html"))


@pytest.mark.parametrize("name", plan_names("controls"))
def test_plans_that_come_with_holo_are_sound(name: str) -> None:
    plan = named_plan(name).check()
    assert plan.helps
    assert plan.hurts


def test_the_placebo_differs_in_its_initial_weights_only(controls: Controls) -> None:
    base, twin = (controls.final_runs(controls.entries[name]) for name in ("vanilla", PLACEBO))
    assert len(base) == len(twin) == 6
    for run, other in zip(base, twin, strict=True):
        assert run.resolved.training.init_seed is None
        assert other.resolved.training.init_seed == INIT_SEED_OFFSET + run.seed
        same = other.resolved.replace({"training.init_seed": None})
        assert same.to_dict()["config"] == run.resolved.to_dict()["config"]
    keys = [run.key for run in controls.todo()]
    assert len(set(keys)) == len(keys) == 20


def test_rows_become_differences_and_findings(controls: Controls, tmp_path: Path) -> None:
    """A pretended run's loss depends on rate and seed only: 0.1 * 3^2 more at the rate x8."""
    page = tmp_path / "page.html"
    execute(controls, RunOptions(page), notify=lambda text: None)
    assert len(controls.rows) == 20
    assert controls.todo() == []
    assert controls.differences("bad") == pytest.approx(dict.fromkeys(range(1, 5), 0.9))
    summary = summarise_controls(controls)
    assert (summary.placebo.campaigns, summary.placebo.false) == (3, 0)  # equal to the last bit
    good, bad = summary.planted
    assert [f.right for f in bad.found] == [1.0, 1.0]
    assert [f.right for f in good.found] == [0.0, 0.0]
    assert write_page(controls, summary, page) > 1000
    text = page.read_text(encoding="utf-8")
    assert "<h2>Placebo</h2>" in text
    assert "<h2>Planted changes</h2>" in text
    columns, rows = table(summary)
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    assert sum(widths) + 2 * (len(widths) - 1) <= 80
    assert "0 of 3 campaigns" in findings(summary)[0]
    assert summary.to_dict()["placebo"]["share"] == 0.0


def test_without_runs_nothing_is_claimed(controls: Controls, tmp_path: Path) -> None:
    summary = summarise_controls(controls)
    assert findings(summary)[0] == "No placebo campaign of 2 seeds is finished."
    assert findings(summary)[1] == "good, known to help: not run."
    write_page(controls, summary, tmp_path / "page.html")


def test_normal_differences_get_a_verdict_as_often_as_stated() -> None:
    rng = np.random.default_rng(2)
    pool = dict(enumerate(rng.normal(0, 0.01, 300), 1))
    found = placebo(pool, 3)
    assert found.campaigns == 100
    low, high = found.interval
    assert low <= 0.05 <= high
    assert found.as_stated
    assert found.resampled == pytest.approx(0.05, abs=0.015)
    assert found.resampled_interval is not None
    assert found.resampled_interval[0] <= 0.05 <= found.resampled_interval[1]


def test_a_referee_that_lies_is_seen() -> None:
    """Differences that hardly vary within a campaign: nearly every one gets a verdict."""
    rng = np.random.default_rng(2)
    pool = {3 * i + j: (-1) ** i + rng.normal(0, 0.01) for i in range(20) for j in range(3)}
    found = placebo(pool, 3)
    assert found.false == 20
    assert (found.better, found.worse) == (10, 10)
    assert not found.as_stated


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('["good"]', '["god"]', "names 'god' as a planted change"),
        ('hurts = ["bad"]', "", "must each be in helps or in hurts, not bad"),
        ("campaigns = 3", "campaigns = 0", "at least one campaign"),
        ("found_with = [2, 3]", "found_with = [2, 9]", r"found_with \(9\) cannot exceed"),
        ("campaigns = 3", "campaigns = 1", "nor planted_seeds the pairs"),
        ("rates = [8.0]", "rates = [8.0, 9.0]", "without a sweep"),
        ("rates = [1.0]", "rates = [1.0, 2.0]", "without a sweep"),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in PLAN
    with pytest.raises(UsageError, match=says):
        read(tmp_path, PLAN.replace(old, new)).check()


def test_bad_files_say_where(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="no plan 'tny' for `holo bench controls`"):
        named_plan("tny")
    with pytest.raises(UsageError, match="unknown key 'seeds'"):
        read(tmp_path, "seeds = 3\n" + PLAN)
    (tmp_path / "p.jsonl").write_text('{"bench": "controls", "format": 99}\n', encoding="utf-8")
    plan = read(tmp_path).changed({"data": str(data)}, {})
    with pytest.raises(DataError, match="format 99"):
        open_controls(plan, RunOptions(tmp_path / "p.html"))
