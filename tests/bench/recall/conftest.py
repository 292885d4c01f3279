"""A small plan of recall, finished without training, and one with three seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holo_cli.bench.recall.plan import RecallPlan, read_plan
from holo_cli.bench.recall.run import Recall, open_recall
from holo_cli.experiment import runner, worker_pool
from holo_cli.experiment.runner import RunOptions, execute
from tests.bench.recall.recall_lab import PLAN

WORKER = """
import json, sys
job = json.load(sys.stdin)
model = job["resolved"]["config"]["model"]
rate = job["resolved"]["config"]["training"]["lr"]
if model["recipe"] == "classic":
    print(json.dumps(dict(event="failed", kind="x", error="No room for the plates.")))
    sys.exit(1)
good = 1.0 if rate < 0.02 else 0.5
spec = job["spec"]
cases = [dict(length=t, items=n, trained=[t, n] in spec["train"], state_bytes=t * 10,
              accuracy=good if t < 30 else None, **({} if t < 30 else {"error": "Too long."}))
         for t, n in spec["train"] + spec["test"]]
print(json.dumps(dict(event="result", cases=cases, losses=[[10, 0.1, 1.0]], steps=10,
    stopped_by="steps", train_seconds=1.0, threads=1)))
"""


@pytest.fixture
def plan(tmp_path: Path) -> RecallPlan:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return read_plan(path).check()


@pytest.fixture
def finished(plan: RecallPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recall:
    import sys

    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", WORKER])
    monkeypatch.setattr(runner, "describe_machine", lambda: {"cpu": "a test's", "threads": 1})
    recall = open_recall(
        replace(plan, rates=(0.5, 1.0), seeds=2), RunOptions(tmp_path / "page.html")
    )
    execute(recall, RunOptions(tmp_path / "page.html"), notify=lambda text: None)
    return recall


@pytest.fixture
def three_seeds(plan: RecallPlan, tmp_path: Path) -> Recall:
    return open_recall(
        replace(plan, rates=(0.5, 1.0), seeds=3), RunOptions(tmp_path / "three.html")
    )
