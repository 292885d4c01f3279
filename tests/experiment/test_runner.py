"""Runs that share a process: the same results, each with a row, whatever happens to one of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from holo_cli.bench.compare.run import open_experiment
from holo_cli.errors import Stopped
from holo_cli.experiment import worker, worker_pool
from holo_cli.experiment.entries import resolve_entry
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import Plan
from holo_cli.experiment.runner import RunOptions, execute
from holo_cli.training.stopping import StopRequest
from tests.bench.compare.test_compare import data, plan, pretended
from tests.experiment.experiment_lab import WORKER

__all__ = ["data", "plan", "pretended"]  # fixtures

# the pretended worker of bench_lab for each part of a series, in processes of their own
SERIES = f"""
import json, subprocess, sys, os
job = json.load(sys.stdin)
def say(**event): print(json.dumps(event), flush=True)
if "parts" not in job:  # the last run, alone
    sys.exit(subprocess.run([sys.executable, "-S", "-c", {WORKER!r}], input=json.dumps(job),
                            text=True).returncode)
parts = job["parts"]
for part in parts:
    say(event="begin", key=part["key"])
    if os.environ.get("KILL") == part["key"]:
        os.kill(os.getpid(), 9)
    ran = subprocess.run([sys.executable, "-S", "-c", {WORKER!r}], input=json.dumps(part),
                         capture_output=True, text=True)
    for line in ran.stdout.splitlines()[:-1]: print(line, flush=True)
    say(event="part", key=part["key"], end=json.loads(ran.stdout.splitlines()[-1]))
    if os.environ.get("KILL_AFTER") == part["key"]:
        os.kill(os.getpid(), 9)
say(event="result", parts=len(parts))
"""


def go(plan: Plan, page: Path, series: int, jobs: int = 1, stop_after: int = 0) -> Experiment:
    experiment, said, stop = open_experiment(plan, RunOptions(page)), [], StopRequest()

    def say(text: str) -> None:
        said.append(text)
        if len(said) == stop_after:
            stop.ask("test")

    experiment.series = series
    execute(experiment, RunOptions(page, jobs), notify=say, stop=stop)
    return experiment


def losses(experiment: Experiment) -> dict[str, float]:
    return {row["key"]: row["val_loss"] for row in experiment.rows}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_series_gives_the_rows_of_separate_runs(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    alone = go(plan, tmp_path / "alone.html", 1)
    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", SERIES])
    together = go(plan, tmp_path / "together.html", 3, jobs)
    assert losses(together) == losses(alone)
    assert not (tmp_path / "together.work").exists()


def test_a_series_can_be_stopped_and_resumed(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", SERIES])
    page = tmp_path / "page.html"
    with pytest.raises(Stopped):
        go(plan, page, 2, stop_after=2)
    before = len(open_experiment(plan, RunOptions(page)).rows)
    assert 2 <= before < 11
    assert len(go(plan, page, 2).rows) == 11


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9")
def test_a_process_that_dies_fails_only_the_run_under_way(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(plan, rates=(1.0,))
    runs = open_experiment(one, RunOptions(tmp_path / "page.html")).todo()
    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", SERIES])
    monkeypatch.setenv("KILL", runs[1].key)
    experiment = go(one, tmp_path / "page.html", 3)
    status = [experiment.rows.get(run.key)["status"] for run in runs]  # type: ignore[index]
    # the run that never began is in the next series
    assert status == ["done", "failed", "done", "done"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9")
def test_a_process_that_dies_after_its_last_run_fails_none(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(plan, rates=(1.0,))
    runs = open_experiment(one, RunOptions(tmp_path / "page.html")).todo()
    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", SERIES])
    monkeypatch.setenv("KILL_AFTER", runs[-1].key)
    experiment = go(one, tmp_path / "page.html", len(runs))
    assert [row["status"] for row in experiment.rows] == ["done"] * len(runs)


def test_the_real_worker_trains_a_series_to_the_same_losses(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = resolve_entry(plan, plan.entries[0], Path(plan.data))
    resolved = resolved.replace({"training.eval_every": 20, "training.dtype": "float32"})
    wrong = resolved.replace({"data.path": str(tmp_path / "gone")}).to_dict()
    parts = [
        {"key": "a", "task": "train", "resolved": resolved.to_dict()},
        {"key": "b", "task": "train", "resolved": wrong},
        {"key": "c", "task": "train", "resolved": resolved.to_dict()},
    ]
    (tmp_path / "series-a").mkdir()
    monkeypatch.chdir(tmp_path / "series-a")
    assert worker.run_job({"task": "series", "resolved": parts[0]["resolved"], "parts": parts})
    assert Path.cwd() == tmp_path / "series-a"
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ends = {event["key"]: event["end"] for event in told if event["event"] == "part"}
    assert [event["key"] for event in told if event["event"] == "begin"] == ["a", "b", "c"]
    assert ends["a"]["val_loss"] == ends["c"]["val_loss"]
    assert ends["b"]["event"] == "failed"
    assert ends["a"]["peak_rss_bytes"] is None  # of the process, so not known of a run
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    assert worker.train({**parts[0]})["val_loss"] == ends["a"]["val_loss"]
