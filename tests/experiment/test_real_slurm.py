"""A comparison on a real Slurm of one node: slurmctld and slurmd of Debian's `slurm-wlm`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holo_cli.bench.compare.summary import summarise, table
from holo_cli.experiment import shared_folder
from holo_cli.experiment.plan import Plan
from tests.bench.compare.test_compare import data, plan, pretended
from tests.experiment.experiment_lab import WORKER
from tests.experiment.test_launchers import FAULTS, go
from tests.training.test_sharding import LONG

__all__ = ["data", "plan", "pretended"]  # fixtures

DAEMONS = ("slurmctld", "slurmd", "sbatch", "squeue")
pytestmark = [
    pytest.mark.skipif(LONG not in os.environ, reason=f"starts a Slurm; set {LONG}=1 to run it"),
    pytest.mark.skipif(
        not all(map(shutil.which, DAEMONS)), reason="needs Debian's package slurm-wlm"
    ),
    pytest.mark.skipif(
        sys.platform == "win32" or os.geteuid() != 0, reason="this Slurm runs as root"
    ),
]

# without munge: all messages stay on this machine
CONF = """
ClusterName=holo
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path / "slurm"
    for folder in ("state", "spool"):
        (home / folder).mkdir(parents=True)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    controller, node = (one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    conf = CONF.format(
        host=socket.gethostname().split(".")[0], controller=controller, node=node, home=home,
        cores=os.cpu_count(),
    )  # fmt: skip
    (home / "slurm.conf").write_text(conf, encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemons = [
        subprocess.Popen([name, "-D"], start_new_session=True, **quiet)  # type: ignore[call-overload]
        for name in ("slurmctld", "slurmd")
    ]
    try:
        end = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False
            ).stdout
        ):
            assert time.monotonic() < end, "Slurm does not start"
            time.sleep(0.5)
        yield
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait(timeout=30)


def test_slurm_gives_the_table_of_one_machine(
    plan: Plan, tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(FAULTS + WORKER, encoding="utf-8")
    task = (
        "import sys; from holo_cli.experiment import task, worker_pool; "
        f"worker_pool.WORKER = [sys.executable, '-S', {str(worker)!r}]; sys.exit(task.main())"
    )
    monkeypatch.setattr(shared_folder, "TASK_COMMAND", [sys.executable, "-c", task])
    few = replace(plan, rates=(1.0,), seeds=1)
    local = go(few, tmp_path / "local.html", "local")
    monkeypatch.setenv("FAULTS", "vanilla 1,")  # stopped once, as by a preemption
    there = go(few, tmp_path / "slurm.html", "slurm")
    assert table(summarise(there)) == table(summarise(local))
    assert [row["status"] for row in there.rows] == ["done", "done"]
