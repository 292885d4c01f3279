"""A run whose number of processes changes reads the same rows and ends like one that did not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from holo_cli.checkpoint import TensorFile, read_header
from holo_cli.config.resolve import resolve
from holo_cli.data.batches import TrainBatches
from holo_cli.errors import UsageError
from holo_cli.training.elastic import divided, redivide
from holo_cli.training.state import Progress
from tests.data.test_batches import shards
from tests.forked_workers import run_module
from tests.training.conftest import SMALL
from tests.training.several import import_once

ROOT = Path(__file__).parents[2]
needs_gloo = pytest.mark.skipif(
    not (hasattr(os, "fork") and dist.is_available() and dist.is_gloo_available()),
    reason="needs forks and a PyTorch that has torch.distributed with gloo",
)


def run_stages(stages: list[dict[str, Any]], timeout: float = 600) -> None:
    """Carry out the stages in the working folder, see `tests/training/several.py`."""
    Path("plan.json").write_text(json.dumps(stages), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        import_once(stages)  # its fork has it too
    run_module("tests.training.several", "plan.json", env=env, timeout=timeout)


def last(run: str) -> dict[str, torch.Tensor]:
    with TensorFile(Path(f"checkpoints/{run}_last.safetensors")) as file:
        return file.read_all()


def same_but_for_rounding(a: str, b: str, prefix: str = "model/", atol: float = 1e-4) -> None:
    first, second = last(a), last(b)
    names = {name for name in first if name.startswith(prefix)}
    assert names == {name for name in second if name.startswith(prefix)}
    for name in names:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=atol)


@needs_gloo
def test_four_two_one_four(prepared: Path, home: Path) -> None:
    flags = SMALL | {
        "data.path": str(prepared), "training.device": "cpu", "model.dropout": 0.0,
        "training.steps": 8, "training.eval_every": 4, "training.log_every": 4,
        "training.batch_size": 2, "training.grad_accum": 1,
    }  # fmt: skip
    one = flags | {"training.batch_size": 8}
    run_stages(
        [
            {"world": 1, "do": "train", "model": "vanilla", "flags": one, "run": "one"},
            {"world": 4, "do": "train", "model": "vanilla", "flags": flags, "run": "x",
             "stop_at": 2},
            {"world": 3, "do": "resume", "run": "x", "refused": "refused.txt"},
            {"world": 2, "do": "resume", "run": "x", "stop_at": 4},
            {"world": 1, "do": "resume", "run": "x", "stop_at": 6},
            {"world": 4, "do": "resume", "run": "x"},
        ]
    )  # fmt: skip
    same_but_for_rounding("one", "x")
    same_but_for_rounding("one", "x", "optimizer/")
    first, second = (read_header(f"checkpoints/{run}_last.safetensors") for run in ("one", "x"))
    assert (first.tokens, first.state["windows"]) == (second.tokens, second.state["windows"])
    for a, b in zip(first.history, second.history, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-5)
    assert (second.processes, second.config["training"]["grad_accum"]) == (4, 1)
    refusal = Path("refused.txt").read_text(encoding="utf-8")
    assert "A step of run 'x' has 8 rows, which 3 processes cannot share equally." in refusal
    assert "Start 2 processes, or another number that divides 8" in refusal


def test_the_rows_of_a_step_are_divided() -> None:
    config = resolve("vanilla", flags={"training.batch_size": 16, "training.grad_accum": 1}, env={})
    for now, batch, accum in ((4, 4, 1), (2, 8, 1), (16, 1, 1)):
        found = divided(config, "x", 1, now).training
        assert (found.batch_size, found.grad_accum) == (batch, accum)
    back = divided(divided(config, "x", 1, 4), "x", 4, 1).training
    assert (back.batch_size, back.grad_accum) == (4, 4)  # no more memory than before
    odd = resolve("vanilla", flags={"training.batch_size": 4, "training.grad_accum": 3}, env={})
    found = divided(odd, "x", 1, 2).training
    assert (found.batch_size, found.grad_accum) == (3, 2)
    with pytest.raises(UsageError, match="16 rows, which 5 processes cannot share"):
        divided(config, "x", 1, 5)


def test_a_step_that_was_begun_goes_on_or_begins_anew() -> None:
    batches = TrainBatches(shards(300), context=8, seed=1)
    kept = Progress(micro=2, windows=104, tokens=104 * 8, step_loss=1.0)
    assert redivide(kept, (2, 4), (4, 2), batches)  # two batches of 2 rows are one of 4
    assert (kept.micro, kept.windows, kept.step_loss) == (1, 104, 1.0)
    anew = Progress(micro=1, windows=102, tokens=102 * 8, step_loss=1.0, aux={"balance": 9.0})
    anew.logged_steps = 2
    assert not redivide(anew, (2, 4), (4, 2), batches)
    assert (anew.micro, anew.windows, anew.tokens, anew.step_loss) == (0, 100, 100 * 8, 0.0)
    assert anew.aux == {"balance": 8.0}  # of two steps and a quarter, two are left


@needs_gloo
def test_a_world_invariant_run_has_the_same_bits(prepared: Path, home: Path) -> None:
    """4 -> 2 -> 1 -> 4 processes, one stop inside a step, dropout on, gradients clipped: like one
    process; then the same of a sharded model."""
    flags = SMALL | {
        "data.path": str(prepared), "training.device": "cpu", "training.world_invariant": True,
        "training.steps": 24, "training.eval_every": 12, "training.log_every": 4,
        "training.batch_size": 2, "training.clip": 0.1,
    }  # fmt: skip
    stages: list[dict[str, Any]] = [
        {"world": 1, "do": "train", "model": "vanilla", "run": "one",
         "flags": flags | {"training.grad_accum": 4}},
    ]  # fmt: skip
    for run in ("x", "sharded"):
        own = flags | {"training.grad_accum": 1, "training.shard": run == "sharded"}
        stages += [
            {"world": 4, "do": "train", "model": "vanilla", "flags": own, "run": run,
             "stop_at": 7},
            {"world": 2, "do": "resume", "run": run, "stop_at": 13},
            {"world": 1, "do": "resume", "run": run, "stop_after": 11},
            {"world": 4, "do": "resume", "run": run},
        ]  # fmt: skip
    stages.append({"world": 3, "do": "resume", "run": "x", "refused": "refused.txt"})
    run_stages(stages)
    one = last("one")
    for run in ("x", "sharded"):
        found = last(run)
        for name in (n for n in one if not n.startswith("rng/")):
            assert torch.equal(one[name], found[name]), (run, name)
    headers = [
        read_header(f"checkpoints/{run}_last.safetensors") for run in ("one", "x", "sharded")
    ]
    assert len({(h.tokens, h.state["windows"], h.losses.val) for h in headers}) == 1
    assert headers[1].losses.train == pytest.approx(headers[0].losses.train, rel=1e-12)
    assert "has 4 batches, which 3 processes cannot" in Path("refused.txt").read_text("utf-8")
