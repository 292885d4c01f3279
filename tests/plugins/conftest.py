"""A folder of its own for each test, and a trained run of a class in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holo_cli import plugins
from holo_cli.data.prepare.prepare import prepare
from tests.plugins.plugin_lab import SMALL, run, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, and nothing named before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    yield tmp_path
    plugins.installed.cache_clear()


@pytest.fixture
def stories(home: Path) -> str:
    prepare(["stories"], out=home / "data/stories", tokenizer="char", max_docs=30)
    return "stories"


@pytest.fixture
def trained(
    stories: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """A run of the class in ideas/mixer.py, of which nothing is named any more."""
    write("ideas/mixer.py")
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    code, said = run(capsys, "train", "--model", "ideas/mixer.py:Mean", "--stop-at", "2")
    assert code == 3, said
    monkeypatch.setattr(plugins, "_named", {})
    return "Mean-stories"
