"""Two processes train as one with batches twice as long, and stop and go on together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from holo_cli.checkpoint import read_header
from holo_cli.config.resolve import resolve
from holo_cli.training.run import train
from tests.forked_workers import run_module
from tests.training.conftest import SMALL
from tests.training.growing import register
from tests.training.one_of_two import categories
from tests.training.several import free_ports
from tests.training.test_run import ignore

ROOT = Path(__file__).parents[2]
LOOPBACK = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
available = dist.is_available() and dist.is_gloo_available()


@pytest.mark.skipif(not available, reason="this PyTorch has no torch.distributed with gloo")
def test_two_processes(prepared: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One start of two processes for everything: starting them is most of the time."""
    given = SMALL | {
        "data.path": str(prepared), "training.device": "cpu", "model.layers": 4,
        "model.dropout": 0.0, "training.steps": 6, "training.eval_every": 3,
        "training.batch_size": 2, "training.grad_accum": 1, "data.document_mask": True,
        "training.unlikelihood": 0.5,
    }  # fmt: skip
    (home / "config.json").write_text(json.dumps(given), encoding="utf-8")
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "PORTS": " ".join(map(str, free_ports(6))),
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    if LOOPBACK:
        shared["GLOO_SOCKET_IFNAME"] = LOOPBACK
    if hasattr(os, "fork"):
        run_module("tests.training.one_of_two", env=shared, timeout=600)
    else:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.training.one_of_two"],
                env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for rank in range(2)
        ]
        said = [process.communicate(timeout=600)[0] for process in started]
        assert not any(process.returncode for process in started), "\n".join(said)

    # two processes with 2 rows each, in three stages of growth: one with 4
    register(monkeypatch)
    train(resolve("growing", flags=given | {"training.batch_size": 4}, env={}), run="one",
          events=ignore)  # fmt: skip
    one, two = (load_file(f"checkpoints/{run}_last.safetensors") for run in ("one", "two"))
    for name in one:
        if name.startswith("model/"):
            torch.testing.assert_close(two[name], one[name], rtol=2e-4, atol=2e-5)
    headers = {
        run: read_header(f"checkpoints/{run}_last.safetensors") for run in ("one", "two", "parts")
    }
    for a, b in zip(headers["one"].history, headers["two"].history, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-5)
        assert (a["step"], a["tokens"]) == (b["step"], b["tokens"])
    assert headers["one"].losses.train == pytest.approx(headers["two"].losses.train, rel=1e-5)
    assert [row.layers for row in headers["two"].stages] == [1, 2, 4]

    # a loss that multiplies two statistics of the batch: the whole batch's in two processes too
    train(categories(given | {"training.batch_size": 4}), run="one-categories", events=ignore)
    one, two = (load_file(f"checkpoints/{n}-categories_last.safetensors") for n in ("one", "two"))
    for name in one:
        if name.startswith("model/"):
            torch.testing.assert_close(two[name], one[name], rtol=2e-4, atol=2e-5)

    # with dropout, which differs by process: stopped between two steps and inside one, and gone on
    whole, parts = (load_file(f"checkpoints/{run}_last.safetensors") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert not torch.equal(whole["rng/cpu"], whole["rng/cpu/1"])
    for name in whole:
        if name.startswith("rng/"):
            assert torch.equal(whole[name], parts[name])
        else:  # gradients inside a step are saved as their mean: equal but for rounding
            torch.testing.assert_close(parts[name], whole[name], rtol=2e-4, atol=2e-5)
