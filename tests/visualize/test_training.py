"""Curves and samples from metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holo_cli.errors import DataError
from holo_cli.visualize.runs import RunCurves, read_run, runs_story
from holo_cli.visualize.training import layered, thinned, training_sections


def log(root: Path, run: str, rows: list[dict[str, Any]], rest: str = "") -> None:
    folder = root / run
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows) + rest
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def rows(steps: int) -> list[dict[str, Any]]:
    train = [
        {"event": "train", "step": s, "tokens": 100 * s, "seconds": 0.25 * s, "loss": 5.0 - s / 100}
        for s in range(1, steps + 1)
    ]
    evaluation = {
        "event": "eval", "step": steps, "tokens": 100 * steps, "train_seconds": 0.25 * steps,
        "val_loss": 3.21, "bpb": 1.5, "sample": "옛날 옛적", "measures": {"radius": 0.7},
    }  # fmt: skip
    start = {"event": "start", "step": 0, "model": "vanilla", "preset": "tiny", "data": "tales"}
    return [start, *train, evaluation, {"event": "save", "step": steps}]


def test_curves_against_steps_tokens_and_seconds(tmp_path: Path) -> None:
    log(tmp_path, "a", rows(20))
    log(tmp_path, "b", rows(10))
    sections = training_sections([read_run("a", tmp_path), read_run("b", tmp_path)])
    titles = [s.title for s in sections]
    assert titles == ["Loss", "What was measured at evaluations", "Samples"]
    loss, measured, samples = sections
    assert loss.data["against"] == ["steps", "tokens", "seconds of training"]
    traces = loss.data["variants"]["Loss"]
    assert [t["name"] for t in traces] == [
        "a, training", "a, validation", "b, training", "b, validation",
    ]  # fmt: skip
    assert [t["entry"] for t in traces] == ["a", "a", "b", "b"]  # of the legend
    for x, factor in zip(traces[0]["xs"], (1, 100, 0.25), strict=True):
        assert x == pytest.approx([factor * s for s in range(1, 21)], abs=0.051)
    assert traces[1]["y"] == [3.21]
    assert [t["tint"] for t in traces] == [0, 0, 1, 1]
    assert traces[1]["marker"]["symbol"] != traces[3]["marker"]["symbol"]
    assert [row[3] for row in loss.tables[0].rows] == traces[0]["y"]
    assert list(measured.data["variants"]) == ["Bits per byte", "radius"]
    assert measured.data["variants"]["radius"][0]["y"] == [0.7]
    assert samples.tables[0].rows == [["a", 20, 3.21, "옛날 옛적"], ["b", 10, 3.21, "옛날 옛적"]]


def test_measures_of_layers_share_a_figure(tmp_path: Path) -> None:
    found = layered(["layer10/silent", "layer2/silent", "radius", "steps_1", "steps_2"])
    assert list(found) == ["silent", "radius", "steps"]
    assert list(found["silent"]) == ["2", "10"]  # by number, not by letters
    assert found["steps"] == {"1": "steps_1", "2": "steps_2"}
    assert found["radius"] == {"": "radius"}
    for run in ("a", "b"):
        logged = rows(5)
        logged[-2]["measures"] = {"layer1/silent": 0.5, "layer2/silent": 0.25, "radius": 0.7}
        log(tmp_path, run, logged)
    sections = training_sections([read_run("a", tmp_path), read_run("b", tmp_path)])
    variants = sections[1].data["variants"]
    traces = variants["silent"]
    assert [t["name"] for t in traces] == ["a, layer 1", "a, layer 2", "b, layer 1", "b, layer 2"]
    assert [t["y"] for t in traces] == [[0.5], [0.25], [0.5], [0.25]]
    assert [t["tint"] for t in traces] == [0, 1, 0, 1]
    assert list(variants) == ["Bits per byte", "silent", "radius"]


def test_a_run_in_a_line(tmp_path: Path) -> None:
    log(tmp_path, "a", rows(2000))
    expected = "vanilla tiny, on tales, step 2,000, best validation loss 3.2100"
    assert read_run("a", tmp_path).summary() == expected


def test_long_runs_are_thinned_and_keep_their_last_point() -> None:
    assert thinned(list(range(5)), 10) == [0, 1, 2, 3, 4]
    kept = thinned(list(range(12_345)), 1000)
    assert len(kept) == len(set(kept)) == 1000
    assert kept[-1] == 12_344
    run = RunCurves(
        "a", [{"step": s, "tokens": s, "seconds": s, "loss": 1.0} for s in range(5000)], []
    )
    (section,) = training_sections([run])
    assert len(section.tables[0].rows) == 1000


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    broken = rows(3)
    broken[2]["loss"] = float("nan")
    broken[4]["bpb"] = None
    log(tmp_path, "a", broken)
    sections = training_sections([read_run("a", tmp_path)])
    assert sections[0].data["variants"]["Loss"][0]["xs"][0] == [1, 3]
    assert list(sections[1].data["variants"]) == ["radius"]


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    log(tmp_path, "a", rows(3), rest='{"event": "train", "st')
    assert len(read_run("a", tmp_path).train) == 3


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    log(tmp_path, "night", rows(3))
    with pytest.raises(DataError, match="has no log") as missing:
        read_run("nigth", tmp_path)
    assert missing.value.next_step == "Did you mean 'night'?"
    log(tmp_path, "damaged", rows(3), rest="{oops\n")
    with pytest.raises(DataError, match=r"Line 7 of .*damaged"):
        read_run("damaged", tmp_path)
    log(tmp_path, "list", [], rest="[1]\n")
    with pytest.raises(DataError, match="Line 1"):
        read_run("list", tmp_path)
    log(tmp_path, "new", rows(0)[:1])
    with pytest.raises(DataError, match="no figures yet"):
        read_run("new", tmp_path)


def evaluated(name: str, losses: list[float], data: str = "tales", bpb: float = 1.0) -> RunCurves:
    rows = [
        {"step": 10 * i, "tokens": 10, "seconds": 1, "val_loss": loss, "bpb": bpb}
        for i, loss in enumerate(losses, start=1)
    ]
    return RunCurves(name, [], rows, {"data": data})


def test_the_sentence_says_which_run_is_lowest_and_by_how_much() -> None:
    a, b, c = evaluated("a", [3, 2]), evaluated("b", [3, 1.5]), evaluated("c", [4, 2.25])
    said = runs_story([a, b, c])
    assert said == (
        "Run 'b' is lowest on the validation set, a loss of 1.5000 at step 20: 0.5000 below "
        "'a' and 0.7500 below 'c'."
    )
    assert "'a' is lowest" in runs_story([a, c])
    # losses of different data cannot be compared
    other = evaluated("d", [0.5], data="letters", bpb=2.0)
    assert "'a' is lowest on the validation set, 1.0000 bits per byte" in runs_story([a, other])


def test_the_sentence_of_one_run_says_whether_it_still_falls() -> None:
    falls = runs_story([evaluated("a", [3, 2, 1.75])])
    assert falls == (
        "The validation loss falls from 3.0000 to 1.7500 in 30 steps, 0.2500 of it in the last 10 "
        "steps."
    )
    rose = runs_story([evaluated("a", [3, 2, 2.5])])
    assert "was lowest at step 20, 2.0000, and has risen by 0.5000" in rose
    assert "only evaluation" in runs_story([evaluated("a", [3])])
    assert "evaluated yet" in runs_story([RunCurves("a", [{"step": 1}], [])])
