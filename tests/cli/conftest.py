"""Running commands in this process, in an empty folder, with fakes for the heavy libraries."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from holo_cli import registry
from holo_cli.__main__ import main


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Holo = Callable[..., Ran]
Fake = Callable[..., ModuleType]


@pytest.fixture
def holo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Holo:
    """Run `holo ARGUMENTS` and get exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for variable in [v for v in os.environ if v.startswith("HOLO_")]:
        monkeypatch.delenv(variable)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a module of fakes in place of a real one: fake("holo_cli.training.run", train=f)."""

    def install(name: str, **attributes: Any) -> ModuleType:
        module = ModuleType(name)
        for key, value in attributes.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)
        package, _, leaf = name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(package), leaf, module, raising=False)
        return module

    return install


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Presets and recipes of the test's own, so that it does not depend on the project's."""
    folder = tmp_path / "configs"
    for name, text in {
        "recipes/modern.toml": "[training]\nlr = 0.02",
        "recipes/classic.toml": '[training]\nlr = 0.001\noptimizer = "adamw"',
        "vanilla/tiny.toml": "[model]\nlayers = 2\nheads = 2\nwidth = 32\ncontext = 64",
        "vanilla/mini.toml": "[model]\nlayers = 3\nheads = 2\nwidth = 64",
        "vanilla/demo.toml": "[training]\nsteps = 77\nwarmup = 7",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(registry, "configs_folder", lambda: folder)
    return folder
