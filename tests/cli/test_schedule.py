"""Schedules that fit a time, and what is said about the time before a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from holo_cli.cli import schedule
from holo_cli.cli.output import Output
from holo_cli.cli.progress import start_line
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.training.step_time import StepTime

SIZES = (300, 1000)  # of the vocabulary, of the validation text
TIME = StepTime(step=1.0, evaluated_token=0.001)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def measure_step(resolved: Resolved, vocab_size: int, *, force: bool = False) -> StepTime:
        calls.append(vocab_size)
        return TIME

    monkeypatch.setattr("holo_cli.training.step_time.measure_step", measure_step)
    return calls


def fitted(preset: str | None = "tiny", **flags: Any) -> tuple[Resolved, float | None]:
    keys = {f"training.{key}": value for key, value in flags.items()}
    return schedule.fitted(
        resolve("vanilla", preset, flags=keys, env={}), Output(verbosity=False), sizes=SIZES
    )


def test_a_time_limit_shortens_the_schedule_with_its_warmup_and_evaluations() -> None:
    resolved, seconds = fitted(time_limit=100, warmup=50)
    config = resolved.training
    assert (config.steps, config.warmup, config.eval_every) == (95, 9, 48)
    assert config.time_limit == 100
    assert seconds == pytest.approx(95 + 2 * 1)
    assert resolved.provenance["training.steps"] == "what fits --time-limit"


def test_steps_that_were_asked_for_stay_and_a_note_says_what_fits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {"training.time_limit": 100, "training.steps": 300}
    resolved, seconds = schedule.fitted(
        resolve("vanilla", "tiny", flags=keys, env={}), Output(), sizes=SIZES
    )
    assert resolved.training.steps == 300
    assert seconds == pytest.approx(100 + 2 * 1)
    assert "About 95 of 300 steps fit --time-limit here" in capsys.readouterr().err


def test_evaluations_that_were_asked_for_stay() -> None:
    assert fitted(time_limit=100, eval_every=70)[0].training.eval_every == 70


def test_a_schedule_that_fits_stays_and_its_time_is_known() -> None:
    resolved, seconds = fitted(time_limit=5000)
    assert resolved.training.steps == 1000
    assert seconds == pytest.approx(1000 + 4 * 1)


def test_a_first_try_takes_minutes_whatever_the_machine() -> None:
    assert fitted(None)[0].training.steps == 240
    assert fitted(None, steps=1000)[0].training.steps == 1000  # asked for
    assert fitted("tiny")[0].training.steps == 1000


def test_a_run_of_a_few_steps_and_one_of_several_processes_are_not_measured(
    measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fitted(steps=20, warmup=1)[1] is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    resolved, seconds = fitted(time_limit=100)
    assert (resolved.training.steps, seconds) == (1000, None)
    assert not measured


def test_the_first_line_says_the_time() -> None:
    assert start_line({"event": "start", "run": "a", "expected_seconds": 185.0}) == (
        "Run a: training takes about 3 min 05 s"
    )


def test_the_dry_run_says_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from holo_cli.cli import dry_run

    monkeypatch.chdir(tmp_path)
    dry_run.show(resolve("vanilla", "tiny", flags={"training.steps": 90}, env={}), Output())
    assert re.search(r"time to train:? +1 min 30 s", capsys.readouterr().out)
