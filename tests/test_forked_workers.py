"""Forked workers end, answer and fail as real processes of the same command do."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from holo_cli.experiment.worker_pool import WorkerProcess
from holo_cli.speed.model_process import ModelProcess, ModelProcessError
from tests.forked_workers import ForkedWorker, forked_workers, run_module
from tests.speed.test_model_process import small

__all__ = ["forked_workers"]  # the fixture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux alone")


def told(job: dict[str, Any], folder: Path) -> list[Any]:
    """What a worker sends, its exit code, and what it says of a crash."""
    folder.mkdir()
    process = WorkerProcess(job, folder, threads=1)
    process.close_stdin()
    events = []
    while (event := process.next_event()) is not None:
        events.append(event)
    code = process.process.wait()
    crash = process.crash()["error"]
    process.close()
    return [events, code, crash]


def test_a_fork_tells_what_a_real_process_tells(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    job = {"task": "fly", "resolved": {"model": "vanilla"}}
    real = told(job, tmp_path / "real")
    request.getfixturevalue("forked_workers")
    assert told(job, tmp_path / "fork") == real
    assert real[1] == 1
    assert "fly" in real[2]


@pytest.mark.usefixtures("forked_workers")
def test_forks_beside_each_other_end_when_their_pipes_are_closed() -> None:
    """None holds the other's pipe open, and a signal ends one as it ends a process."""
    children = [ModelProcess(name, "decoding", small()) for name in "abc"]
    for child in children:
        assert child.ask("warm")["parameters"] > 0
    assert all(isinstance(child._worker.process, ForkedWorker) for child in children)
    os.kill(children[1].pid, signal.SIGKILL)
    with pytest.raises(ModelProcessError, match=r"SIGKILL\); out of memory\?"):
        children[1].ask("warm")
    for child in children:
        child._worker.close_stdin()
        assert child._worker.process.wait(timeout=120) in (0, -signal.SIGKILL)
        child.close()


def test_a_module_that_fails_or_takes_too_long_says_what_it_printed(tmp_path: Path) -> None:
    env = dict(os.environ)
    with pytest.raises(AssertionError, match=r"FileNotFoundError: .*no-plan\.json"):
        run_module("tests.training.several", str(tmp_path / "no-plan.json"), env=env, timeout=300)
    pipe = tmp_path / "never-written"
    os.mkfifo(pipe)
    with pytest.raises(AssertionError):
        run_module("tests.training.several", str(pipe), env=env, timeout=0.2)
