"""Ladder plans: read, chosen from, and refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.bench.ladder.plan import LadderPlan, Rung, named_plan, read_plan
from holo_cli.errors import UsageError
from holo_cli.experiment.plan import plan_names

LADDER = """
rates = [0.5, 1.0]
seeds = 2
extend = 2
evaluations = 1
budgets = [1]
tolerance = 0.1
resamples = 100
[base.model]
layers = 1
heads = 2
context = 16
[base.training]
batch_size = 8
[rung.s]
parameters = 4_000
width = 16
[rung.m]
parameters = 8_000
width = 24
[rung.l]
parameters = 16_000
width = 32
[entry.vanilla]
model = "vanilla"
[entry.ngt]
model = "ngt"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", plan_names("ladder"))
def test_plans_that_come_with_holo_are_sound(name: str) -> None:
    plan = named_plan(name).check()
    assert len(plan.rungs) >= 3
    assert plan.shared.entries[0].name == "vanilla"


def test_a_plan_is_read(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, LADDER)).check()
    assert [r.name for r in plan.rungs] == ["s", "m", "l"]
    assert plan.rungs[1] == Rung("m", 8_000, {"model.width": 24})
    assert plan.budgets == (1,)
    assert plan.shared.seeds == 2
    assert [r.name for r in plan.swept_rungs] == ["s"]  # the smallest, if the plan names none


def test_rates_come_from_the_nearest_swept_rung() -> None:
    rungs = tuple(Rung(str(n), n) for n in (100, 200, 400, 1600, 3200))
    plan = LadderPlan(rungs=rungs, swept=("100", "1600"))
    assert [plan.rates_from(r).name for r in rungs] == ["100", "100", "100", "1600", "1600"]


def test_typed_settings_overrule_those_of_the_rungs(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, LADDER)).changed({}, {}, sets=["model.width=48", "layers=2"])
    base = plan.comparison(plan.rungs[0], 30).base
    assert (base["model.width"], base["model.layers"], base["training.steps"]) == (48, 2, 30)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[rung.l]\nparameters = 16_000\nwidth = 32", "", "at least 3 rungs .* this plan has 2"),
        ("16_000", "7_000", "ascending order of parameters: m has 8,000, and l after it 7,000"),
        ("16_000", "8_000", "ascending order"),
        ("budgets = [1]", "budgets = []", r"cannot have budgets \[\]"),
        ("budgets = [1]", "budgets = [1, 1]", "cannot have budgets"),
        ("budgets = [1]", "budgets = [1, inf]", "cannot have budgets"),
        ("budgets = [1]", "budgets = [nan]", "cannot have budgets"),
        ("budgets = [1]", "budgets = [1]\nahead = inf", "cannot have ahead"),
        ("budgets = [1]", "budgets = [1]\nahead = nan", "cannot have ahead"),
        ("budgets = [1]", "budgets = [1]\nswept = ['x']", "a rung 'x'"),
        ("budgets = [1]", "budgets = [1]\nahead = 1.0", "cannot have ahead"),
        ("resamples = 100", "resamples = 3", "cannot have resamples"),
        ("batch_size = 8", "batch_size = 8\nsteps = 3", "training.steps is set by the ladder"),
        ("batch_size = 8", "batch_size = 8\nseed = 3", "training.seed is set by the ladder"),
        ("seeds = 2", "seeds = 0", "cannot have seeds 0"),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in LADDER
    plan = read_plan(write(tmp_path, LADDER.replace(old, new)))
    with pytest.raises(UsageError, match=says):
        plan.check()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("parameters = 4_000\n", "", r"\[rung.s\] needs parameters"),
        ("seeds = 2", "match = 'time'", "unknown key 'match'"),
        ("seeds = 2", "seeds = 'two'", "seeds cannot be 'two'"),
        ("budgets = [1]", "budgets = 1", "budgets cannot be 1"),
    ],
)
def test_plan_files_that_are_wrong_say_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_plan(write(tmp_path, LADDER.replace(old, new)))


def test_unknown_plans_and_entries_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no plan 'tny' for `holo bench ladder`"):
        named_plan("tny")
    with pytest.raises(UsageError, match="no model 'vanila'"):
        read_plan(write(tmp_path, LADDER)).select(["vanila"])
