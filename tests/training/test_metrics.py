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


@pytest.mark.skipif(sys.platform == "win32", reason="locks of open files differ")
def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".metrics.jsonl.0123abcd.tmp"
    left.write_bytes(b"half")
    MetricsLog(tmp_path).close()
    assert not left.exists()
