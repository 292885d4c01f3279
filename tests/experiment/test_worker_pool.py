"""Workers: what they say is heard, what they die of is told, a stop leaves their folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from holo_cli.errors import DataError
from holo_cli.experiment import worker_pool
from holo_cli.experiment.worker_pool import Job, WorkerEvent, run_jobs

# a worker that does what its job says, without torch
SCRIPT = """
import json, os, signal, sys, time
job = json.load(sys.stdin)
print("a library says hello", flush=True)
def say(**event): print(json.dumps(event), flush=True)
if job["task"] == "die":
    print("ValueError: no such plate", file=sys.stderr)
    sys.exit(1)
if job["task"] == "kill":
    os.kill(os.getpid(), 9)
if job["task"] == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    open("kept", "w").close()
    say(event="train", step=1)
    time.sleep(60)
say(event="train", step=1)
say(event="result", answer=job["number"] * 2)
"""


@pytest.fixture(autouse=True)
def quick_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", SCRIPT])


class Desk:
    """Jobs that are to do, and what was heard of them."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.key: job for job in jobs}
        self.events: list[WorkerEvent] = []
        self.asked = 0

    def todo(self) -> list[Job]:
        self.asked += 1
        return list(self.jobs.values())

    def on_event(self, received: WorkerEvent) -> None:
        self.events.append(received)
        if received.is_last:
            del self.jobs[received.job.key]

    def ends(self) -> dict[str, dict[str, object]]:
        return {e.job.key: e.event for e in self.events if e.is_last}


def jobs(count: int) -> list[Job]:
    return [Job(f"k{i}", "double", {"number": i}) for i in range(count)]


@pytest.mark.parametrize("size", [1, 2])
def test_jobs_are_done_and_leave_nothing(tmp_path: Path, size: int) -> None:
    desk = Desk(*jobs(3))
    assert run_jobs(desk.todo, desk.on_event, tmp_path / "w", size, lambda: False)
    assert {k: e["answer"] for k, e in desk.ends().items()} == {"k0": 0, "k1": 2, "k2": 4}
    assert sum(e.event["event"] == "train" for e in desk.events) == 3
    assert not (tmp_path / "w").exists()
    assert desk.asked <= 4  # once, and after each end: not at every event


def test_a_job_that_dies_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    desk = Desk(Job("bad", "die", {}), *jobs(1))
    assert run_jobs(desk.todo, desk.on_event, tmp_path / "w", 1, lambda: False)
    assert desk.ends()["bad"]["error"] == "ValueError: no such plate"
    assert desk.ends()["k0"]["answer"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9")
def test_a_job_that_is_killed_is_told_from_one_that_was_stopped(tmp_path: Path) -> None:
    desk = Desk(Job("bad", "kill", {}))
    assert run_jobs(desk.todo, desk.on_event, tmp_path / "w", 1, lambda: False)
    event = desk.ends()["bad"]
    assert event["event"] == "failed"
    assert "out of memory?" in str(event["error"])


def test_a_stop_keeps_what_a_job_has_left(tmp_path: Path) -> None:
    desk = Desk(Job("slow", "wait", {}))
    folder = tmp_path / "w"
    assert not run_jobs(desk.todo, desk.on_event, folder, 1, lambda: bool(desk.events))
    assert (folder / "slow" / "kept").exists()
    assert desk.ends() == {}
    # when nothing is left to do, what stopped jobs of other settings left goes too
    later = Desk(*jobs(1))
    assert run_jobs(later.todo, later.on_event, folder, 1, lambda: False)
    assert not folder.exists()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with worker_pool.WorkerPool(tmp_path / "w"), pytest.raises(DataError, match="at work"):
        worker_pool.WorkerPool(tmp_path / "w").__enter__()
