"""A small plan of recall, whose runs train on a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.bench.recall.plan import RecallPlan, read_plan
from tests.bench.recall.recall_lab import PLAN


@pytest.fixture
def plan(tmp_path: Path) -> RecallPlan:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return read_plan(path).check()
