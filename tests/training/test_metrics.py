"""The log of a run: a folder that is deleted under it is no reason to stop."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from holo_cli.training.metrics import MetricsLog


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files")
def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    log = MetricsLog(folder)
    log.write({"event": "train", "step": 1, "loss": 3.0, "lr": 0.1})
    shutil.rmtree(tmp_path / "runs")
    log.write({"event": "train", "step": 2, "loss": 2.0, "lr": 0.1})
    log.close()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2]
