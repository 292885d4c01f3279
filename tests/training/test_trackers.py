"""Trackers: what they are given, what continues after a resume, and that none ends a training."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holo_cli.errors import TrainingError
from holo_cli.training.metrics import MetricsLog
from holo_cli.training.trackers import Tracker

EVAL = {
    "event": "eval", "step": 20, "tokens": 640, "val_loss": 2.5, "bpb": 1.5,
    "measures": {"fires": 0.05}, "sample": "옛날",
}  # fmt: skip
TRAIN = {"event": "train", "step": 10, "loss": 3.0, "lr": 0.01, "aux": {"balance": 0.2}}


class StandIn(ModuleType):
    """The three calls that trackio and wandb have in common."""

    class Error(Exception):
        pass

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.fails_at = ""
        self.Settings = dict

    def _call(self, name: str, given: Any) -> None:
        print("a line of the tracker's own")
        if self.fails_at == name:
            raise self.Error("no route to host")
        self.calls.append((name, given))

    def init(self, **given: Any) -> None:
        self._call("init", given)

    def log(self, values: dict[str, Any], step: int) -> None:
        self._call("log", (step, values))

    def finish(self) -> None:
        self._call("finish", None)


@pytest.fixture(params=["trackio", "wandb"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def tracker(name: str, folder: Path, warnings: list[str], *, resumed: bool = False) -> Tracker:
    given = {"resumed": resumed, "warn": warnings.append}
    return Tracker(name, "holo", "first", folder, {"training.lr": 0.02}, **given)


def test_numbers_texts_and_settings_arrive_and_stdout_stays_clean(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsLog(tmp_path, tracker=tracker(stand_in.__name__, tmp_path, []))
    for event in (TRAIN, EVAL, {"event": "done", "step": 20}):
        log.write(event)
    log.close()
    (first, init), *rest = stand_in.calls
    assert (first, init["project"], init["name"]) == ("init", "holo", "first")
    assert init["config"] == {"training.lr": 0.02}
    assert init["resume"] == "never"
    assert rest == [
        ("log", (10, {"train/loss": 3.0, "train/lr": 0.01, "train/balance": 0.2})),
        (
            "log",
            (20, {"val/loss": 2.5, "val/bpb": 1.5, "model/fires": 0.05, "sample": "옛날"}),
        ),
        ("finish", None),
    ]
    assert capsys.readouterr().out == ""


def test_a_resumed_run_continues_and_a_new_one_does_not(stand_in: StandIn, tmp_path: Path) -> None:
    for resumed in (False, True, False):
        tracker(stand_in.__name__, tmp_path, [], resumed=resumed)
    first, second, third = (given for _, given in stand_in.calls)
    assert [given["resume"] for given in (first, second, third)] == ["never", "allow", "never"]
    if stand_in.__name__ == "wandb":
        assert first["id"] == second["id"] != third["id"]
        assert json.loads((tmp_path / "tracker.json").read_text()) == {"id": third["id"]}
    else:
        assert "id" not in first


@pytest.mark.parametrize("damage", ["", "{", "[1]", "{}"])
def test_a_damaged_identity_begins_a_run_of_its_own(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = StandIn("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    (tmp_path / "tracker.json").write_text(damage)
    warnings: list[str] = []
    tracker("wandb", tmp_path, warnings, resumed=True)
    assert warnings == [
        f"{tmp_path / 'tracker.json'} cannot be read: the tracker gets a new run from here on."
    ]
    assert json.loads((tmp_path / "tracker.json").read_text()) == {"id": module.calls[0][1]["id"]}


def test_a_failing_tracker_is_left_with_one_warning(stand_in: StandIn, tmp_path: Path) -> None:
    warnings: list[str] = []
    log = MetricsLog(tmp_path, tracker=tracker(stand_in.__name__, tmp_path, warnings))
    stand_in.fails_at = "log"
    for event in (TRAIN, EVAL):
        log.write(event)
    log.close()
    assert warnings == [
        f"{stand_in.__name__} is given nothing more: no route to host. "
        "The log in the run's folder continues."
    ]
    assert [name for name, _ in stand_in.calls] == ["init"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_one_that_does_not_start_or_is_missing_is_one_sentence(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.fails_at = "init"
    with pytest.raises(TrainingError, match=r"did not start: no route to host\.") as refused:
        tracker(stand_in.__name__, tmp_path, [])
    assert "--track none" in refused.value.next_step
    monkeypatch.setitem(sys.modules, stand_in.__name__, None)
    with pytest.raises(TrainingError, match="not installed") as refused:
        tracker(stand_in.__name__, tmp_path, [])
    assert f"holo-cli[{stand_in.__name__}]" in refused.value.next_step


@pytest.fixture(params=["trackio", "wandb"])
def real(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The package itself, without a network."""
    for key in ("WANDB_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(key, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip(request.param, reason=f"needs the extra {request.param}")
    yield request.param
    assert os.environ["WANDB_MODE"] == "offline"


def test_the_packages_take_what_they_are_given(real: str, tmp_path: Path) -> None:
    for resumed in (False, True):
        warnings: list[str] = []
        log = MetricsLog(
            tmp_path / "first", tracker=tracker(real, tmp_path, warnings, resumed=resumed)
        )
        for event in (TRAIN, EVAL):
            log.write(event)
        log.close()
        assert warnings == []
