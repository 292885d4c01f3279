"""A model spread over processes (`training.shard`) trains like one process, for every model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from holo_cli import registry
from holo_cli.checkpoint import load_model, read_header
from holo_cli.config.resolve import resolve
from holo_cli.errors import UsageError
from holo_cli.training.elastic import check_group
from holo_cli.training.sharded_muon import owners, rows_of
from tests.training.conftest import SMALL, smallest
from tests.training.test_elastic import needs_gloo, run_stages, same_but_for_rounding

LONG = "PROCESS_TESTS"  # environment variable: minutes on two cores
BASE = SMALL | {
    "training.device": "cpu", "model.dropout": 0.0, "model.layers": 2, "training.steps": 4,
    "training.eval_every": 2, "training.log_every": 1, "training.batch_size": 8,
    "training.grad_accum": 1, "training.warmup": 1,
}  # fmt: skip
# What does not look like a plain transformer: numbers that cannot be sharded, growth, a balance by
# its gradient, statistics over the rows of all processes, a tied and an untied head.
SPECIAL: dict[str, dict[str, Any]] = {
    "brain-v1": {
        "model.sparsity": "kwta", "model.growth": (1,),
        "model.growth_at": (0.5,), "model.columns": 4,
    },
    "holographic": {"model.experts": 3, "model.balance": 1.0, "model.tied": False},
    "ngt": {"model.lambda_repulsion": 0.01, "model.learn_power": True},
}  # fmt: skip


def special(model: str, prepared: Path) -> dict[str, Any]:
    return smallest(model) | BASE | {"data.path": str(prepared)} | SPECIAL.get(model, {})


def stage(world: int, model: str, flags: dict[str, Any], run: str, **more: Any) -> dict[str, Any]:
    own = {"training.batch_size": 8 // world, "training.shard": world > 1}
    return {"world": world, "do": "train", "model": model, "flags": flags | own, "run": run} | more


def same_losses(a: str, b: str) -> None:
    first, second = (read_header(f"checkpoints/{run}_last.safetensors") for run in (a, b))
    assert len(first.history) == 2
    for x, y in zip(first.history, second.history, strict=True):
        assert x["val_loss"] == pytest.approx(y["val_loss"], abs=1e-5)
    assert first.losses.train == pytest.approx(second.losses.train, abs=1e-5)


@needs_gloo
def test_sharded_training_is_that_of_one_process(prepared: Path, home: Path) -> None:
    """brain-v1 on two processes until it grows, then on one, then on four in groups of two."""
    flags = special("brain-v1", prepared)
    again = {"do": "resume", "run": "parts"}
    run_stages(
        [
            stage(1, "brain-v1", flags, "one"),
            stage(2, "brain-v1", flags, "parts", stop_at=1),
            {"world": 1, **again, "stop_at": 3},
            {"world": 4, **again, "overrides": {"training.shard_group": 2}},
        ]
    )
    same_losses("one", "parts")
    same_but_for_rounding("one", "parts")
    same_but_for_rounding("one", "parts", "optimizer/")
    header = read_header("checkpoints/parts_last.safetensors")
    assert [row.layers for row in header.stages] == [1, 2]
    load_model(Path("checkpoints/parts_best.safetensors"))  # as any other


@needs_gloo
@pytest.mark.skipif(LONG not in os.environ, reason=f"takes minutes; set {LONG}=1 to run it")
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("model", registry.model_names())
def test_every_model(model: str, world: int, prepared: Path, home: Path) -> None:
    flags = special(model, prepared) | {"training.grad_checkpoint": world == 4}
    adam = {"training.optimizer": "adamw", "training.lr": 0.003}
    run_stages(
        [
            stage(1, model, flags, "one"),
            stage(world, model, flags, "several"),
            stage(1, model, flags | adam, "one-adam"),
            stage(world, model, flags | adam, "several-adam"),
        ],
        timeout=900,
    )
    for end in ("", "-adam"):
        same_losses(f"one{end}", f"several{end}")
        same_but_for_rounding(f"one{end}", f"several{end}")


def test_owners_share_the_matrices() -> None:
    sizes = [64, 64, 64, 64, 16, 16, 128, 1]
    load = [0] * 4
    for size, owner in zip(sizes, owners(sizes, 4), strict=True):
        load[owner] += size
    assert max(load) <= 2 * min(load)
    assert [rows_of(5, rank, 4) for rank in range(4)] == [2, 2, 1, 0]


def test_groups_must_divide_the_processes() -> None:
    flags = {"training.shard": True, "training.shard_group": 3}
    config = resolve("vanilla", flags=flags, env={}).training
    check_group(config, 6)
    with pytest.raises(UsageError, match=r"training.shard_group \(3\) must divide the 4 processes"):
        check_group(config, 4)
