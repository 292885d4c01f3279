"""Plans of recall: what they hold, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holo_cli.bench.recall.plan import RecallPlan, read_plan
from holo_cli.errors import UsageError
from holo_cli.tasks.spec import TaskSpec
from tests.bench.recall.recall_lab import PLAN


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "classic"', "rates = [3.0]", r"rates of \[entry.textbook\] is for a comparison"),
        ('recipe = "classic"', 'match = "none"', r"match of \[entry.textbook\]"),
        ('recipe = "classic"', 'vary = ["model.width"]', r"vary of \[entry.textbook\]"),
        ('recipe = "classic"', "set = { context = 32 }", "model.context from entry textbook"),
        ('recipe = "classic"', "set = { vocab_size = 99 }", "model.vocab_size from entry"),
        ("conv = 4", "context = 32", "model.context from the plan"),
        ("warmup = 5", "seed = 7", "training.seed from the plan"),
        ("warmup = 5", "time_limit = 7", "training.time_limit"),
        ("sequences = 64", "sequences = 64\nbase.data.path = 'x'", "reads no text"),
        ("sequences = 64", "widths = [64]", "model.width from the plan"),
        ("vocab = 16", "vocab = 2", "at least 3 tokens of vocabulary, not 2"),
        ("vocab = 16", "vocab = 16.5", "vocab is a whole number"),
        ("vocab = 16", 'vocab = "many"', "vocab is a whole number"),
    ],
)
def test_what_would_be_without_effect_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PLAN
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_plan(path).check()


def test_tasks_are_chosen_by_name(plan: RecallPlan) -> None:
    assert plan.select_tasks(["mqar"]).tasks == plan.tasks
    with pytest.raises(UsageError, match="no task 'mqra'"):
        plan.select_tasks(["mqra"])


def test_a_needle_may_have_a_depth(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    needle = PLAN.replace("task.mqar", "task.needle-en").replace("vocab = 16", "vocab = 200")
    needle = needle.replace("[[16, 1], [20, 2]]", "[[64, 1]]").replace("[[32, 2]]", "[[90, 2]]")
    path.write_text(needle, encoding="utf-8")
    (anywhere,) = read_plan(path).check().tasks
    assert "depth" not in anywhere.to_dict()
    path.write_text(f"{needle}depth = 0.25", encoding="utf-8")
    (spec,) = read_plan(path).check().tasks
    assert getattr(spec.task, "depth", None) == 0.25
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    for depth, message in (("2.0", "from 0 to 1, not 2"), ('"deep"', "a number from 0 to 1")):
        path.write_text(f"{needle}depth = {depth}", encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            read_plan(path).check()
    path.write_text(f"{PLAN}depth = 0.5", encoding="utf-8")
    with pytest.raises(UsageError, match="unknown key 'depth'"):
        read_plan(path)


def test_widths_make_an_entry_of_each(plan: RecallPlan) -> None:
    spread = replace(plan, widths=(32, 64)).at_widths()
    assert [e.name for e in spread] == [
        "attention 32", "attention 64", "textbook 32", "textbook 64",
    ]  # fmt: skip
    assert spread[1].settings["model.width"] == 64


def test_an_exam_survives_being_written(plan: RecallPlan) -> None:
    spec = plan.tasks[0]
    assert TaskSpec.from_dict(spec.to_dict()) == spec
