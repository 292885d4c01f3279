"""A ladder and a recall of several runs through Slurm give the table of the same runs here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from holo_cli.bench.ladder.page import rungs_table
from holo_cli.bench.ladder.plan import open_ladder
from holo_cli.bench.ladder.plan import read_plan as read_ladder
from holo_cli.bench.ladder.summary import summarise_ladder
from holo_cli.bench.recall.plan import read_plan as read_recall
from holo_cli.bench.recall.run import Recall, open_recall
from holo_cli.experiment import runner, worker_pool
from holo_cli.experiment.launchers import Launcher
from holo_cli.experiment.runner import RunOptions, execute
from tests.bench.ladder.test_plan import LADDER, write
from tests.bench.recall.conftest import WORKER as RECALL_WORKER
from tests.bench.recall.recall_lab import PLAN as RECALL_PLAN
from tests.experiment.experiment_lab import COMMAND, write_set
from tests.experiment.fake_slurm import FakeSlurm
from tests.experiment.test_launchers import fake

__all__ = ["fake"]  # a fixture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")


def options(page: Path, where: str) -> RunOptions:
    return RunOptions(page, 4, launcher=Launcher.of(where))


def test_a_ladder(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "WORKER", COMMAND)
    monkeypatch.setattr(runner, "describe_machine", lambda: {"cpu": "a test's", "threads": 1})
    (tmp_path / "set").mkdir()
    data = write_set(tmp_path / "set")
    plan = read_ladder(write(tmp_path, LADDER)).changed({"data": str(data), "seeds": 1}, {})
    tables, keys = [], []
    for where in ("local", "slurm"):
        chosen = options(tmp_path / f"{where}.html", where)
        ladder = open_ladder(plan, chosen)
        execute(ladder, chosen, notify=lambda text: None)
        found = summarise_ladder(ladder)
        tracks = [rungs_table(own, "vanilla") for own in found.budgets.values()]
        tables.append(tracks)
        keys.append({row["key"] for row in ladder.rows})
    assert tables[0] == tables[1]
    assert keys[0] == keys[1]
    assert fake.arrays() >= 1


def test_recall(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker.py").write_text(RECALL_WORKER, encoding="utf-8")
    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", RECALL_WORKER])
    monkeypatch.setattr(runner, "describe_machine", lambda: {"cpu": "a test's", "threads": 1})
    path = tmp_path / "recall.toml"
    path.write_text(RECALL_PLAN, encoding="utf-8")
    plan = replace(read_recall(path).check(), rates=(0.5, 1.0), seeds=1)
    scores = []
    for where in ("local", "slurm"):
        chosen = options(tmp_path / f"{where}.html", where)
        recall: Recall = open_recall(plan, chosen)
        execute(recall, chosen, notify=lambda text: None)
        scores.append([score.to_dict() for score in recall.scores()])
    assert scores[0] == scores[1]
    assert fake.arrays() >= 1
