"""docs/theory.md, section 9: its table is that of the models. The page names the tests."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

import pytest

from holo_cli.models.base import LanguageModel

PAGE = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
LENGTHS = (1024, 4096)
SIZES = {"layers": 4, "heads": 4, "width": 64}
SYMBOLS: dict[str, Any] = {"L": 4, "H": 4, "C": 64, "e": 16, "min": min, "ceil": math.ceil}


def rows() -> list[tuple[str, str, str]]:
    """Model, numbers of state of all layers, and FLOPs of all layers per token looked back on."""
    section = PAGE.partition("## 9.")[2]
    found = re.findall(r"^\| ([\w-]+) \| `(.+?)` \| `(.+?)` \|", section, re.MULTILINE)
    return [(name, state, work) for name, state, work in found]


def build(name: str, length: int) -> LanguageModel:
    place = f"holo_cli.models.{name.replace('-', '_')}"
    config = importlib.import_module(f"{place}.config").Config
    made: LanguageModel = importlib.import_module(f"{place}.model").Model(
        config(vocab_size=50, context=length, **SIZES)
    )
    return made


def values(model: LanguageModel, length: int) -> dict[str, Any]:
    """The letters of the page for this model's config."""
    config: Any = model.config
    given = {"W": "window", "S": "sinks", "R": "plates", "d": "dimensions", "N": "state_size"}
    given |= {"K": "key_width", "D": "inner", "G": "memory_head_count", "s": "attention_share"}
    letters = {k: getattr(config, v) for k, v in given.items() if hasattr(config, v)}
    return SYMBOLS | letters | {"T": length}


def evaluated(formula: str, letters: dict[str, Any]) -> float:
    return float(eval(formula, {"__builtins__": {}}, letters))


@pytest.mark.parametrize(("name", "state", "work"), rows(), ids=[row[0] for row in rows()])
def test_the_table_of_costs_is_that_of_the_models(name: str, state: str, work: str) -> None:
    short, long = (build(name, length) for length in LENGTHS)
    for model, length in zip((short, long), LENGTHS, strict=True):
        mixers = sum(block.mixer.state_bytes(length) for block in model.layers())  # type: ignore[attr-defined]
        numbers = evaluated(state, values(model, length))
        assert mixers == pytest.approx(4 * numbers, abs=16)
        assert model.describe().state_bytes == model.state_bytes(length) >= mixers
    before, after = short.describe(), long.describe()
    more = LENGTHS[1] - LENGTHS[0]
    slope = evaluated(work, values(long, LENGTHS[1]))
    grown = (after.decode_flops_per_token - before.decode_flops_per_token) / more
    assert grown == pytest.approx(slope, rel=0.01, abs=1e-6)
    # training: three times the forward pass, over half the context on average
    grown = (after.train_flops_per_token - before.train_flops_per_token) / more
    assert grown == pytest.approx(1.5 * slope, rel=0.02, abs=1e-6)


def test_every_model_has_a_row() -> None:
    folders = (Path(__file__).parents[2] / "holo_cli" / "models").glob("*/model.py")
    assert {row[0] for row in rows()} == {path.parent.name.replace("_", "-") for path in folders}


def test_every_test_of_the_theory_is_named_on_the_page_and_exists() -> None:
    written = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        found = re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        written |= {f"{path.name}::{name}" for name in found}
    told = set(re.findall(r"`(test_\w+\.py::test_\w+)`", PAGE))
    assert told == written
