"""What torchrun starts again continues, and stops are not started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from holo_cli.checkpoint import read_header
from holo_cli.errors import UsageError
from holo_cli.training import restart
from tests.training.test_elastic import needs_gloo, same_but_for_rounding
from tests.training.test_sharding import LONG

ROOT = Path(__file__).parents[2]


def test_what_torchrun_starts_again_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS", raising=False)
    assert not restart.restarted(None)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    with pytest.raises(UsageError, match="a run needs a name"):
        restart.restarted(None)
    last = tmp_path / "checkpoints" / "both_last.safetensors"
    last.parent.mkdir()
    last.touch()
    assert not restart.restarted("both")  # its first start: a run of that name is refused as ever
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restart.restarted("both")
    assert not restart.restarted("other")
    os.utime(last, (1e9, 1e9))  # from before this torchrun
    assert not restart.restarted("both")


def command(prepared: Path, *more: str, launcher: tuple[str, ...] = ()) -> list[str]:
    small = {
        "model.layers": 1, "model.heads": 2, "model.width": 16, "model.context": 16,
        "model.dropout": 0.0, "training.warmup": 1, "training.save_every": 5,
        "training.sample_tokens": 0, "training.log_every": 10,
    }  # fmt: skip
    sets = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    return [
        sys.executable, "-m", "holo_cli.torchrun", "--nproc-per-node", "2", *launcher, "--",
        "train", "--model", "vanilla", "--data", str(prepared), "--batch-size", "2",
        "--device", "cpu", "--dtype", "float32", *sets, *more,
    ]  # fmt: skip


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@needs_gloo
@pytest.mark.skipif(LONG not in os.environ, reason=f"takes minutes; set {LONG}=1 to run it")
def test_a_stop_and_a_killed_process(prepared: Path, home: Path) -> None:
    restarts = ("--max-restarts", "2")
    stop = command(
        prepared, "--run", "a", "--steps", "20", "--eval-every", "10", "--stop-at", "7",
        launcher=restarts,
    )  # fmt: skip
    done = subprocess.run(
        stop, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 3, done.stderr
    assert read_header("checkpoints/a_last.safetensors").step == 7

    long = ("--steps", "200", "--eval-every", "100")
    whole = command(prepared, "--run", "whole", *long)
    subprocess.run(whole, env=ENVIRONMENT, capture_output=True, timeout=600, check=True)
    process = subprocess.Popen(
        command(prepared, "--run", "killed", *long, launcher=restarts),
        env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    last = Path("checkpoints/killed_last.safetensors")
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.05)
    victim = workers(process.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    while not set(workers(process.pid)) - {victim} or victim in workers(process.pid):
        assert process.poll() is None
        time.sleep(0.05)
    assert time.monotonic() - killed < 30
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    same_but_for_rounding("whole", "killed")
    assert read_header("checkpoints/killed_last.safetensors").step == 200


def workers(launcher: int) -> list[int]:
    """The processes that train, children of torchrun."""
    return [p.pid for p in psutil.Process(launcher).children() if p.status() != "zombie"]
