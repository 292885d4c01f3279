"""`holo bench guard`: its exit codes and what it prints, with measurements of a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Holo


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    values = {"a": [1.0, 1.0, 1.0]}

    def measure(**_: Any) -> tuple[dict[str, list[float]], dict[str, str]]:
        return values, {"b": "left out"}

    monkeypatch.setattr("holo_cli.speed.guard.measure", measure)
    monkeypatch.setattr("holo_cli.experiment.machine.product_rate", lambda dtype: 100.0)
    return values


def test_it_ends_with_1_where_a_ratio_fell_and_with_0_otherwise(
    holo: Holo, found: dict[str, list[float]], tmp_path: Path
) -> None:
    base = str(tmp_path / "base.json")
    ran = holo("bench", "guard", "--update", "--baseline", base)
    assert ran.code == 0, ran.err
    ran = holo("bench", "guard", "--baseline", base, "--json")
    assert ran.code == 0, ran.err
    lines = {line["ratio"]: line["verdict"] for line in json.loads(ran.out)["lines"]}
    assert lines == {"a": "as before", "b": "not measured"}
    found["a"] = [0.5, 0.5, 0.5]
    ran = holo("bench", "guard", "--baseline", base)
    assert ran.code == 1
    assert "1 of 2 ratios became slower: a." in ran.err
    assert "slower" in ran.out


def test_what_cannot_be_asked(holo: Holo) -> None:
    assert holo("bench", "guard", "--seconds", "0").code == 2
    ran = holo("bench", "guard", "--baseline", "none.json")
    assert (ran.code, "Cannot read the baseline none.json" in ran.err) == (1, True)
