"""Small runs as for checkpoints, and a place of its own for code that `transformers` loads."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.checkpoint.conftest import Run, classic, make, make_run, run, tokens

__all__ = ["Run", "classic", "make", "make_run", "run", "tokens"]


@pytest.fixture
def transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The library; modelling files that it loads are copied into a folder of the test."""
    library = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    library.utils.logging.disable_progress_bar()
    found: ModuleType = library
    return found
