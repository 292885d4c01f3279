"""Background saves in parts: by two processes, and through a whole run that is stopped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from holo_cli.checkpoint import TensorFile, load_model, read_header
from holo_cli.checkpoint.parts import parts_folder
from holo_cli.errors import CheckpointError
from holo_cli.training.sharded_saving import _first
from tests.forked_workers import run_module
from tests.training.test_elastic import needs_gloo, run_stages, same_but_for_rounding
from tests.training.test_sharding import special, stage

ROOT = Path(__file__).parents[2]


@needs_gloo
def test_two_processes_save_in_the_background(home: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run_module("tests.training.saving_in_two", env=env, timeout=300)


@needs_gloo
def test_parts_become_one_file_and_parts_again(prepared: Path, home: Path) -> None:
    """Two processes, stopped inside an accumulation; one process; two again."""
    flags = special("vanilla", prepared) | {"training.grad_accum": 2, "training.optimizer": "adamw"}
    flags |= {"training.lr": 0.003}
    last = Path("checkpoints/x_last.safetensors")
    run_stages(
        [
            stage(1, "vanilla", flags, "one"),
            stage(2, "vanilla", flags, "x", stop_at=1),
            {"world": 1, "do": "check", "run": "x", "parts": True},
            {"world": 1, "do": "resume", "run": "x", "stop_at": 3},
            {"world": 1, "do": "check", "run": "x", "parts": False},
            {"world": 2, "do": "resume", "run": "x"},
        ]
    )
    same_but_for_rounding("one", "x")
    same_but_for_rounding("one", "x", "optimizer/")
    with TensorFile(last) as file:
        assert not file.verify().damaged
        assert file.header.format == 3
    assert len(list(parts_folder(last).iterdir())) == 2
    assert read_header("checkpoints/x_best.safetensors").format == 2  # whole: to copy and to send
    load_model(last)


def test_the_first_failure_is_the_same_in_all_processes() -> None:
    own, other = CheckpointError("No room."), CheckpointError("Other.")
    failures = {1: (own, None), 3: (other, None)}
    assert _first(CheckpointException("x", failures)) is own  # type: ignore[arg-type]
    odd = CheckpointException("x", {0: (ValueError("y"), None)})  # type: ignore[dict-item]
    with pytest.raises(CheckpointException):
        raise _first(odd)
