"""`holo pull`: what it says when it is done, was done before, or is interrupted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.checkpoints import make_checkpoint
from tests.cli.conftest import Holo


@pytest.fixture
def table(holo: Holo) -> str:
    """A table of a checkpoint that nobody serves."""
    content = make_checkpoint(Path("made.safetensors"), "ready-small").read_bytes()
    entry = {
        "name": "small", "file": "ready-small.safetensors", "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    found = {"format": 1, "base_url": "https://example.invalid/", "checkpoints": [entry]}
    Path("ready.json").write_text(json.dumps(found), encoding="utf-8")
    return "ready.json"


def test_a_checkpoint_that_is_here_is_said_to_be_so_once(holo: Holo, table: str) -> None:
    Path("checkpoints").mkdir()
    path = Path("made.safetensors").rename("checkpoints/ready-small_best.safetensors")
    ran = holo("pull", "small", "--table", table, "--offline")
    assert ran.code == 0, ran.err
    assert ran.out == f"{path.as_posix()}\n"
    assert ran.err == f"{path.as_posix()} is here already.\nNext: holo chat -c ready-small\n"


def test_nothing_is_fetched_offline(holo: Holo, table: str) -> None:
    ran = holo("pull", "small", "--table", table, "--offline")
    assert ran.code == 1
    assert "ready-small.safetensors is not here, and --offline forbids fetching it." in ran.err


def test_an_interrupted_download_is_said_to_continue(
    holo: Holo, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holo_cli.checkpoint.pull._download", interrupted)
    ran = holo("pull", "small", "--table", table)
    assert ran.code == 130
    assert "the same command continues there" in ran.err
