"""What is measured: entries at one shape, spreads, and the log of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holo_cli.errors import DataError, UsageError
from holo_cli.speed.measurements import (
    MeasurementLog,
    Spread,
    baseline_of,
    error_bars,
    resolve_entries,
)


def test_all_get_the_shape_of_the_baseline() -> None:
    lined_up = resolve_entries(["ngt", "vanilla"], ["deep=vanilla,layers=6,conv=4"], batch_size=3)
    shapes = {s.name: s.resolved for s in lined_up}
    assert list(shapes) == ["ngt", "vanilla", "deep"]
    for name in ("ngt", "vanilla"):
        model = shapes[name].model
        assert (model.layers, model.width, model.context, model.vocab_size) == (4, 128, 128, 1024)
    assert shapes["deep"].model.layers == 6
    assert {s.training.batch_size for s in shapes.values()} == {3}
    assert baseline_of(lined_up) == "vanilla"
    assert baseline_of(resolve_entries(["ngt"])) == "ngt"
    assert baseline_of(resolve_entries(["ngt"], ["v=vanilla"])) == "v"


def test_settings_of_all_stand_under_those_of_a_variant() -> None:
    lined_up = resolve_entries(
        ["vanilla"], ["b=vanilla,width=64"], sets=["model.width=32"], context=16
    )
    assert [s.resolved.model.width for s in lined_up] == [32, 64]
    assert lined_up[0].resolved.model.context == 16
    big = resolve_entries(["vanilla"], preset="25m")[0].resolved
    assert (big.model.layers, big.model.width, big.model.context) == (8, 512, 512)
    assert (big.model.vocab_size, big.training.batch_size) == (8192, 2)


@pytest.mark.parametrize(
    ("models", "variants", "message"),
    [
        (["vanila"], [], "no model 'vanila'"),
        (["vanilla", "vanilla"], [], "named twice"),
        (["vanilla"], ["a"], "NAME=MODEL"),
        (["vanilla"], ["a=vanilla,widht=3"], "widht"),
        (["vanilla"], ["a=vanilla,width=7"], "must be"),
        (["checkpoints/my-run_best.safetensors"], [], "is a path"),
    ],
)
def test_who_cannot_be_measured(models: list[str], variants: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_entries(models, variants)


def test_a_spread_is_median_least_and_most() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0, 4)
    assert Spread.of([]) is None
    bars = error_bars([Spread(2.5, 1.0, 9.0, 4)], 2.0)
    assert (bars["array"], bars["arrayminus"]) == ([13.0], [3.0])


def test_rows_of_several_runs_lie_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    for run in ("one", "two"):
        MeasurementLog.open(path, "speed", run).add("training", "a", 0, seconds=1.5)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line.get("run") for line in lines] == [None, "one", "two"]
    with pytest.raises(DataError, match="not of decode"):
        MeasurementLog.open(path, "decode", "three")
