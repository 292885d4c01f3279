"""Which changes of the code make earlier rows those of other code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holo_cli.experiment import code_fingerprint


def test_code_of_a_recall_run_covers_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed task is another code for a run of recall, and the same one for a comparison."""
    root = tmp_path / "holo_cli"
    folders = shutil.ignore_patterns("__pycache__", "configs", "visualize", "cli")
    shutil.copytree(code_fingerprint.ROOT, root, ignore=folders)
    monkeypatch.setattr(code_fingerprint, "ROOT", root)
    trained, recalled = (
        code_fingerprint.code_fingerprint("vanilla"),
        code_fingerprint.code_fingerprint("vanilla", "recall"),
    )
    assert trained != recalled
    for changed in ("mqar.py", "train.py", "compressor.py"):
        path = root / "tasks" / changed
        path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
        assert code_fingerprint.code_fingerprint("vanilla") == trained
        assert code_fingerprint.code_fingerprint("vanilla", "recall") != recalled
        recalled = code_fingerprint.code_fingerprint("vanilla", "recall")
