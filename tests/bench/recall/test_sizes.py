"""Accuracy against state over widths, what is left to run and for how long, one number format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.bench.recall import run as bench
from holo_cli.bench.recall.page import by_size, cases_shown, size_table, write_page
from holo_cli.bench.recall.plan import named_plan, read_plan
from holo_cli.bench.recall.run import Recall, RecallRun, open_recall, time_left
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.time_estimate import format_note
from holo_cli.tasks import TASKS, TaskCase

PLAN = """
widths = [32, 64]
sequences = 8
[base.model]
layers = 1
heads = 2
[base.training]
steps = 10
warmup = 1
[entry.attention]
model = "vanilla"
[entry.gravity]
model = "ngt"
[task.mqar]
vocab = 16
train = [[16, 1], [20, 2]]
test = [[32, 2]]
[task.copying]
vocab = 16
train = [[16, 2]]
"""


@pytest.fixture
def recall(tmp_path: Path) -> Recall:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return open_recall(read_plan(path), RunOptions(tmp_path / "page.html"))


def add(recall: Recall, run: RecallRun, accuracy: float, trained: float, **more: Any) -> None:
    """A row as if the run had ended so; its state is ten bytes for each unit of width."""
    width = run.resolved.model.width
    cases = [
        {
            "length": c.length, "items": c.items, "accuracy": accuracy, "trained": True,
            "state_bytes": 10 * width,
        }
        for c in run.spec.cases
    ]  # fmt: skip
    row = {
        "key": run.key, "entry": run.entry, "model": run.resolved.model_name, "status": "done",
        "cases": cases, "steps": 10,
        "config": run.resolved.to_dict()["config"], "train_seconds": trained, "losses": [[1, 1.0]],
        "stopped_by": "steps", "code": "x", "date": "y", "machine": {},
    }  # fmt: skip
    recall.rows.add(row | more)


def test_sizes_of_a_family_stand_together(recall: Recall, tmp_path: Path) -> None:
    for run in recall.runs:
        if run.entry != "gravity 64":
            add(recall, run, 0.25 if run.resolved.model.width == 32 else 0.75, 1.0)
    scores = [s for s in recall.scores() if s.spec.name == "mqar"]
    assert [s.to_dict()["width"] for s in scores[:6]] == [32] * 3 + [64] * 3
    assert cases_shown(recall.plan.tasks[0]) == [TaskCase(20, 2), TaskCase(32, 2)]
    assert cases_shown(recall.plan.tasks[1]) == [TaskCase(16, 2)]
    lines = by_size(recall, scores, TaskCase(20, 2))
    assert lines["attention"] == [(32, 320, 0.25), (64, 640, 0.75)]
    assert lines["gravity"] == [(32, 320, 0.25), (64, None, None)]
    assert size_table(recall, scores, TaskCase(20, 2), lambda n: f"{n} B") == (
        ["model", "width 32", "width 64"],
        [["attention", "25 % at 320 B", "75 % at 640 B"], ["gravity", "25 % at 320 B", "–"]],
    )
    write_page(recall, recall.scores(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Associative recall, 20 tokens and 2 items: accuracy by state size" in text
    assert "width 64" in text


def test_a_plan_without_widths_has_no_sizes(tmp_path: Path) -> None:
    opened = open_recall(named_plan("tiny"), RunOptions(tmp_path / "tiny.html"))
    assert opened.families == {
        "attention": ("attention", None),
        "convolution": ("convolution", None),
    }
    assert by_size(opened, opened.scores(), opened.plan.tasks[0].train[0]) == {}
    write_page(opened, opened.scores(), tmp_path / "tiny.html")
    assert "accuracy by state size" not in (tmp_path / "tiny.html").read_text(encoding="utf-8")


def test_what_is_left_is_told_by_what_is_done(recall: Recall) -> None:
    nothing = time_left(recall)
    assert [(e.task, e.runs, e.done, e.left, e.seconds) for e in nothing] == [
        ("mqar", 4, 0, 4, None), ("copying", 4, 0, 4, None), ("all", 8, 0, 8, None),
    ]  # fmt: skip
    mqar = [run for run in recall.runs if run.spec.name == "mqar"]
    add(recall, mqar[0], 1.0, 5.0, seconds=10.0)
    add(recall, mqar[1], 1.0, 30.0)  # an older row, without the time of the whole run
    found = {e.task: e for e in time_left(recall)}
    # two of mqar at the task's mean; four of copying, of which nothing is known, at that of all
    assert (found["mqar"].left, found["mqar"].seconds) == (2, 40.0)
    assert (found["copying"].left, found["copying"].seconds) == (4, 80.0)
    assert found["all"].to_dict() == {
        "task": "all", "runs": 8, "done": 2, "left": 6, "seconds": 120.0,
    }  # fmt: skip
    for run in mqar[2:]:
        add(recall, run, 1.0, 1.0)
    assert {e.task: e.seconds for e in time_left(recall)}["mqar"] == 0.0


def test_a_page_has_one_number_format(recall: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its first run, whatever the machine says after a stop."""
    first, second = recall.runs[:2]
    monkeypatch.setattr(bench, "pick_dtype", lambda name, device: torch.bfloat16)
    assert recall.chosen(first)["dtype"] == "bfloat16"
    add(recall, first, 1.0, 1.0, **recall.chosen(first))
    monkeypatch.setattr(bench, "pick_dtype", lambda name, device: torch.float32)
    assert recall.chosen(second) == recall.chosen(first)
    note = format_note(recall.chosen(second)["dtype"], bench.fast_format(second), recall.rows)
    assert note is not None
    assert "compute in bfloat16" in note
    assert "--dtype float32" in note
    add(recall, first, 1.0, 1.0, device="cuda:0", dtype="bfloat16")  # another device's
    assert recall.chosen(second)["dtype"] == "float32"


def test_every_task_is_in_the_large_plans_and_each_case_can_be_made() -> None:
    for name in ("small", "full"):
        plan = named_plan(name).check()
        assert {spec.name for spec in plan.tasks} == set(TASKS)
        assert plan.seeds == 3
        assert len(plan.rates) >= 2
    sizes = named_plan("memory-size").check()
    assert sizes.widths == (32, 64, 128)
    assert [spec.name for spec in sizes.tasks] == ["mqar"]
    named_plan("tiny").check()
