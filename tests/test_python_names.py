"""Every name that docs/python.md shows exists where it says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import holo_cli as holo
from holo_cli.errors import HoloError

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
OF_HOLO = sorted(set(re.findall(r"\bholo\.([A-Za-z_]\w*)", PAGE)))
FULL = sorted(set(re.findall(r"\bholo_cli(?:\.\w+)+", PAGE)))
IMPORTED = [
    (module, name.strip())
    for module, names in re.findall(r"^from (holo_cli[\w.]*) import (.+)$", PAGE, re.MULTILINE)
    for name in names.split(",")
]


@pytest.mark.parametrize("name", OF_HOLO)
def test_names_of_the_package(name: str) -> None:
    assert hasattr(holo, name)
    assert name in dir(holo)


@pytest.mark.parametrize("name", FULL)
def test_full_names(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("module", "name"), IMPORTED)
def test_imported_names(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_methods_of_a_model_and_of_a_loaded_one() -> None:
    listed = re.search(r"is in `holo_cli/models/base.py`: (.+?)\. ", PAGE.replace("\n", " "))
    assert listed
    for name in re.findall(r"`(\w+)`", listed[1]):
        assert hasattr(holo.LanguageModel, name)
    for name in set(re.findall(r"\blm\.(\w+)", PAGE)):
        fields = holo.LoadedModel.__dataclass_fields__
        assert name in fields or hasattr(holo.LoadedModel, name)
    for name in set(re.findall(r"\bchat\.(\w+)", PAGE)) - {"md"}:
        assert hasattr(holo.ChatSession, name) or name in ("statistics",)


def test_every_error_is_a_holo_error() -> None:
    assert "HoloError" in OF_HOLO
    for name in ("UsageError", "DataError", "CheckpointError", "TrainingError", "Stopped"):
        assert name in OF_HOLO
        assert issubclass(getattr(holo, name), HoloError)
