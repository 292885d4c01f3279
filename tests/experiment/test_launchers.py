"""A comparison on a cluster gives the table of the same comparison on one machine."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holo_cli.bench.compare import run as compare
from holo_cli.bench.compare.run import open_experiment
from holo_cli.bench.compare.summary import summarise, table
from holo_cli.errors import DataError, Stopped, UsageError
from holo_cli.experiment import shared_folder, slurm
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.launchers import Launcher
from holo_cli.experiment.plan import Plan
from holo_cli.experiment.ray_pool import resources
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.slurm import SlurmPool
from holo_cli.experiment.worker_pool import Job
from holo_cli.training.stopping import StopRequest
from tests.bench.compare.test_compare import data, plan, pretended
from tests.experiment.experiment_lab import WORKER
from tests.experiment.fake_slurm import FakeSlurm, install

__all__ = ["data", "plan", "pretended"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")

# What happens to the first try of some runs; the second one finds the file that it left.
FAULTS = """
import json, os, signal, sys, time
from pathlib import Path
job = json.loads(sys.stdin.readline())
resolved = job["resolved"]
name = f"{resolved['model']} {resolved['config']['training']['seed']}"
def stop(*_): sys.exit(3)
signal.signal(signal.SIGTERM, stop)
if name in os.environ.get("FAULTS", "").split(",") and not Path("tried").exists():
    Path("tried").touch()
    print(json.dumps({"event": "train", "step": 1, "steps": 2, "loss": 3.0}), flush=True)
    if name.startswith("vanilla") and os.environ["FAULTS"] != name:
        os.kill(os.getppid(), signal.SIGTERM)  # preempted
    if name.startswith("ngt"): os.kill(os.getppid(), 9); sys.exit()  # its machine is lost
    time.sleep(60)
import io
sys.stdin = io.StringIO(json.dumps(job))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    worker = tmp_path / "worker.py"
    worker.write_text(FAULTS + WORKER, encoding="utf-8")
    task = (
        "import sys; from holo_cli.experiment import task, worker_pool; "
        f"worker_pool.WORKER = [sys.executable, '-S', {str(worker)!r}]; sys.exit(task.main())"
    )
    monkeypatch.setattr(shared_folder, "TASK_COMMAND", [sys.executable, "-c", task])
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.1)
    monkeypatch.setattr(shared_folder, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(shared_folder, "LOST_SECONDS", 1.0)
    return install(tmp_path / "slurm", monkeypatch)


def go(plan: Plan, page: Path, name: str, **options: Any) -> Experiment:
    chosen = RunOptions(page, 8, launcher=Launcher.of(name), **options)
    experiment = open_experiment(plan, chosen)
    compare.run(experiment, chosen, notify=lambda text: None)
    return experiment


def test_slurm_gives_the_table_of_one_machine(
    plan: Plan, tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(plan, rates=(1.0,))
    local = go(few, tmp_path / "local.html", "local")
    monkeypatch.setenv("FAULTS", "vanilla 1,ngt 1")
    there = go(few, tmp_path / "slurm.html", "slurm")
    assert table(summarise(there)) == table(summarise(local))
    assert {row["key"] for row in there.rows} == {row["key"] for row in local.rows}
    assert all(row["wall_seconds"] > 0 for row in there.rows)
    assert len(fake.requeued()) == 2  # the preempted run, and that of the lost machine
    assert fake.arrays() == 1
    assert not (tmp_path / "slurm.work").exists()


def test_tuning_through_slurm_tries_and_finds_the_same(
    plan: Plan, tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    tuned = replace(plan, tune=4, seeds=1)
    found = []
    for name in ("local", "slurm"):
        if name == "slurm":  # every trial is preempted, or loses its machine, once
            monkeypatch.setenv("FAULTS", "vanilla 0,ngt 0")
        experiment = go(tuned, tmp_path / f"{name}.html", name)
        assert experiment.tuning is not None
        rows = {row["key"]: (row["role"], row.get("tune"), row["val_loss"])
                for row in experiment.rows}  # fmt: skip
        found.append((rows, experiment.tuning.table(), table(summarise(experiment))))
    assert found[0] == found[1]
    assert sum(role == "tune" for role, *_ in found[1][0].values()) == 8
    assert len(fake.requeued()) == 8
    assert fake.arrays() > 1  # trials are proposed from the results of those before


def test_a_stop_saves_the_tasks_and_the_same_command_resumes(
    plan: Plan, tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, page = replace(plan, rates=(1.0,), seeds=1), tmp_path / "page.html"
    monkeypatch.setenv("FAULTS", "vanilla 1")
    chosen = RunOptions(page, 8, launcher=Launcher.of("slurm"))
    stop, experiment = StopRequest(), open_experiment(few, chosen)

    def on_event(run: str, event: dict[str, Any]) -> None:
        if event["event"] == "train" and "vanilla" in run:
            stop.ask("test")

    with pytest.raises(Stopped):
        compare.run(experiment, chosen, notify=lambda text: None, on_event=on_event, stop=stop)
    assert fake.queue() == []
    rows = go(few, page, "slurm").rows
    assert [row.get("error") for row in rows] == [None, None]


def test_a_killed_coordinator_finds_its_tasks_again(tmp_path: Path, fake: FakeSlurm) -> None:
    resolved = {"model": "vanilla", "config": {"training": {"seed": 3, "lr": 0.02, "steps": 4}}}
    resolved["config"]["model"] = {}  # type: ignore[index]
    job = Job("k1", "train", {"resolved": resolved})
    (tmp_path / "worker.py").write_text("import time; time.sleep(1.5)\n" + WORKER, "utf-8")
    first = SlurmPool(tmp_path / "w", 4)
    first.__enter__()
    first.start(job)
    first.start(Job("k2", "train", {"resolved": resolved}))
    first.next_event(0.1)
    first._lock.release()  # as the system does when the process is killed
    with SlurmPool(tmp_path / "w", 4) as second:
        second.start(job)
        end = time.monotonic() + 120
        while (received := second.next_event(0.2)) is None or not received.is_last:
            assert time.monotonic() < end
        assert received.event["event"] == "result"
        assert fake.arrays() == 1  # k1 was not submitted again, and k2, which nobody asked for,
        assert "41_1" not in fake.queue()  # was cancelled
        second.clean_up(received)
        second.clear()
    assert not (tmp_path / "w").exists()


def test_a_task_that_leaves_nothing_is_a_failed_run(
    plan: Plan, tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('no holo on this machine')"]
    monkeypatch.setattr(shared_folder, "TASK_COMMAND", broken)
    few = replace(plan, rates=(1.0,), seeds=1)
    rows = list(go(few, tmp_path / "page.html", "slurm").rows)
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert "ended without a result" in rows[0]["error"]


def test_what_slurm_refuses_is_told(plan: Plan, tmp_path: Path, fake: FakeSlurm) -> None:
    chosen = RunOptions(
        tmp_path / "page.html", 8, launcher=Launcher.of("slurm", "--partition=none")
    )
    with pytest.raises(DataError, match="invalid partition specified: none"):
        compare.run(open_experiment(plan, chosen), chosen, notify=lambda text: None)


def test_launchers_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    for name, arguments, says in (
        ("slurm", "", "no `sbatch` on the path"),
        ("slrum", "", "no launcher 'slrum'"),
        ("local", "--gpus=1", "no effect on this machine"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            Launcher.of(name, arguments)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Ray is not installed"):
        Launcher.of("ray")


def test_resources_of_ray() -> None:
    assert resources(["num_cpus=2", "num_gpus=0.25", "fast=1"]) == {
        "num_cpus": 2.0, "num_gpus": 0.25, "resources": {"fast": 1.0},
    }  # fmt: skip
    for wrong in ("num_gpus", "num_gpus=x", "=1", "num_cpus=-1"):
        with pytest.raises(UsageError, match="no resource of Ray"):
            resources([wrong])


def test_ray_gives_the_table_of_one_machine(plan: Plan, tmp_path: Path, fake: FakeSlurm) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    if not os.environ.get("PROCESS_TESTS"):
        pytest.skip("starts a Ray cluster: set PROCESS_TESTS=1")
    few = replace(plan, rates=(1.0,), seeds=1)
    local, there = (go(few, tmp_path / f"{name}.html", name) for name in ("local", "ray"))
    assert table(summarise(there)) == table(summarise(local))
