"""`holo bench guard`: what counts as slower, and one small measurement."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from holo_cli.errors import DataError, TrainingError
from holo_cli.speed import guard
from holo_cli.speed.guard import (
    BASELINE,
    RATIOS,
    entries,
    judge,
    measure,
    read_baseline,
    slower_error,
    write_baseline,
)

STORED = {"ratios": {"a": {"ratio": 2.0, "tolerance": 0.2}}}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([2.0, 2.1, 1.9], guard.SAME),
        ([1.7, 1.65, 1.7], guard.SAME),  # within the tolerance
        ([1.5, 1.5, 1.5], guard.SLOWER),
        ([1.5, 1.5, 2.1, 1.5, 2.1], guard.SAME),  # rounds disagree
        ([2.6, 2.6, 2.6], guard.FASTER),
    ],
)
def test_a_ratio_is_judged_by_its_median_and_its_rounds(values: list[float], verdict: str) -> None:
    (line,) = judge({"a": values}, {}, STORED)
    assert line.verdict == verdict
    error = slower_error([line])
    assert (error is not None) == (verdict == guard.SLOWER)
    assert error is None or "1 of 1 ratios became slower: a." in str(error)


def test_what_was_not_measured_or_is_not_stored_is_said() -> None:
    lines = judge({"new": [1.0]}, {"a": "no compiler"}, STORED)
    assert [(line.name, line.verdict) for line in lines] == [
        ("new", guard.UNKNOWN), ("a", guard.MISSING)
    ]  # fmt: skip
    assert lines[1].reason == "no compiler"
    assert slower_error(lines) is None


def test_the_baseline_of_the_project_has_every_ratio_but_perhaps_that_of_compiling() -> None:
    stored = read_baseline()["ratios"]
    assert RATIOS.keys() - stored.keys() <= {"train: compiled / eager"}
    assert stored.keys() <= RATIOS.keys()


def test_a_case_that_cannot_be_built_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        def __init__(self, rate: float) -> None:
            self._rate = rate

        def rate(self) -> float:
            return self._rate

    def case(side: tuple[str, str], configs: object) -> Fixed:
        if "compiled" in side:
            raise TrainingError("no compiler here.")
        return Fixed(3.0 if side == ("train", "ngt") else 2.0)

    monkeypatch.setattr(guard, "case", case)
    ratios = {k: RATIOS[k] for k in ("train: ngt / vanilla", "train: compiled / eager")}
    found, failed = measure(seconds=1e-9, ratios=ratios, configs={})
    assert found == {"train: ngt / vanilla": [1.5] * guard.LEAST_ROUNDS}
    assert failed == {"train: compiled / eager": "no compiler here."}
    _, failed = measure(seconds=1e-9, ratios=ratios, configs={}, compile_too=False)
    assert failed == {"train: compiled / eager": "left out"}


def test_real_cases_are_measured_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "SLICE", 0.01)
    names = ("decode / train: vanilla", "fast / reference: vanilla")
    found, failed = measure(seconds=1e-9, ratios={name: RATIOS[name] for name in names})
    assert not failed
    assert all(value > 0 for values in found.values() for value in values)
    assert statistics.median(found["fast / reference: vanilla"]) > 1
    path = tmp_path / "base.json"
    write_baseline(path, found)
    lines = judge(found, {}, read_baseline(path))
    assert {line.verdict for line in lines} == {guard.SAME}


def test_variables_of_the_environment_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = entries()
    monkeypatch.setenv("HOLO_MODEL_LAYERS", "1")
    assert {k: v.resolved.values() for k, v in entries().items()} == {
        k: v.resolved.values() for k, v in before.items()
    }


def test_the_classic_recipe_is_measured_at_the_same_shape() -> None:
    found = entries()
    classic, modern = found["classic"].resolved, found["vanilla"].resolved
    for key in ("model.width", "model.layers", "model.context", "training.batch_size"):
        assert classic.values()[key] == modern.values()[key]
    assert classic.training.optimizer != modern.training.optimizer


@pytest.mark.parametrize("content", ["{}", "[]", '{"ratios": {"a": 1}}', "no JSON"])
def test_a_file_that_is_no_baseline(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"base\.json"):
        read_baseline(path)
    with pytest.raises(DataError, match="Cannot read"):
        read_baseline(tmp_path / "none.json")
    assert BASELINE.is_file()
