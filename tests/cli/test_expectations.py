"""The first run on a text of one's own says what to expect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from holo_cli.cli import expectations
from holo_cli.cli.expectations import expecting, tell_expectations
from holo_cli.cli.output import Output
from holo_cli.cli.progress import TrainingDisplay
from holo_cli.config.training_schema import DataConfig


def data(tokens: int = 100_000, name: str = "mine") -> Any:
    return SimpleNamespace(
        name=name, fingerprint="f", token_count=lambda split: tokens,
        byte_count=lambda split: 3 * tokens,
    )  # fmt: skip


START = {"event": "start", "parameters": 1_000_000, "epochs": 8.0}
FIRST = {"event": "train", "step": 1, "steps": 9, "loss": 2.0, "eta_seconds": 600.0}


def test_the_figures() -> None:
    said: list[str] = []
    tell_expectations(data(), START, FIRST, said.append)
    assert "100k tokens of text for 1M parameters, 0.1 for each" in said[0]
    assert "read 8.0 times" in said[0]
    assert "by heart" in said[1]
    assert said[2] == "Training takes about 10 min 00 s more."
    assert "loss of 3.1 (1.5 bits per byte)" in said[3]  # 1.5 x ln 2 x 3 bytes per token
    said.clear()
    tell_expectations(data(20_000_000), START, FIRST, said.append)
    assert len(said) == 3


@pytest.mark.parametrize(("first", "times"), [(True, 1), (False, 0)])
def test_it_is_said_once_after_the_first_speed(
    first: bool, times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(expectations, "is_first", lambda data: first)
    monkeypatch.setattr("holo_cli.data.dataset.PreparedData.open", lambda *_, **__: data())
    mine = DataConfig(path="mine")
    show = expecting(TrainingDisplay(Output()), mine, Output())
    for event in (START, FIRST, FIRST | {"step": 2}):
        show(event)
    assert capsys.readouterr().err.count("What to expect") == times
    quiet = Output(verbosity=False)
    events = TrainingDisplay(quiet)
    assert expecting(events, mine, quiet) is events


def test_the_embedded_stories_are_not_a_text_of_ones_own() -> None:
    assert not expectations.is_first(data(name="stories"))
