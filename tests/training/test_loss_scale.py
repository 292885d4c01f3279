"""Training in float16: the loss is scaled, a step that overflows is left out, a resume is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.checkpoint import read_header
from holo_cli.config.resolve import Resolved
from holo_cli.errors import Stopped, TrainingError
from holo_cli.training import trainer as training
from holo_cli.training.loss_scale import FIRST, GROW_AFTER, LARGEST, LossScale
from holo_cli.training.run import resume, train
from holo_cli.training.state import Progress
from tests.training.conftest import same_files
from tests.training.test_run import ignore

Small = Callable[..., Resolved]


def test_the_factor_falls_and_rises() -> None:
    progress = Progress()
    scale = LossScale(progress, torch.float16)
    assert scale.factor == FIRST
    assert scale.overflowed(finite=False)
    assert (scale.factor, progress.scale_steps) == (FIRST / 2, 0)
    for _ in range(GROW_AFTER - 1):
        assert not scale.overflowed(finite=True)
    assert scale.factor == FIRST / 2
    assert not scale.overflowed(finite=True)
    assert (scale.factor, progress.scale_steps) == (FIRST, 0)
    progress.loss_scale, progress.scale_steps = LARGEST, GROW_AFTER - 1
    scale.overflowed(finite=True)
    assert scale.factor == LARGEST
    progress.loss_scale = 1.0
    assert not scale.overflowed(finite=False)  # no factor helps: the run has diverged


def test_gradients_are_divided_by_it() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([FIRST, 3 * FIRST])
    LossScale(Progress(), torch.float16).unscale([p])
    assert p.grad.tolist() == [1.0, 3.0]
    for dtype in (torch.float32, torch.bfloat16):
        progress = Progress()
        other = LossScale(progress, dtype)
        other.unscale([p])
        assert p.grad.tolist() == [1.0, 3.0]
        assert (other.factor, progress.loss_scale) == (1.0, None)
        assert not other.overflowed(finite=False)


def test_a_run_in_float16_learns_and_resumes_exactly(small: Small, home: Path) -> None:
    flags: dict[str, Any] = {
        "training.dtype": "float16", "training.steps": 30, "training.eval_every": 10,
        "model.dropout": 0.0,
    }  # fmt: skip
    train(small(**flags), run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(small(**flags), run="parts", events=ignore, stop_at=13)
    resume("parts", events=ignore)
    same_files("whole", "parts")
    header = read_header("checkpoints/whole_last.safetensors")
    assert header.state["loss_scale"] == FIRST
    assert header.state["scale_steps"] == 30
    assert header.losses.val is not None
    assert header.losses.val < header.history[0]["val_loss"]
    train(small(**flags | {"training.dtype": "float32"}), run="wide", events=ignore)
    wide = read_header("checkpoints/wide_last.safetensors")
    assert header.losses.val == pytest.approx(wide.losses.val, abs=0.02)


def test_a_step_that_overflows_is_left_out(
    small: Small, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    real = training.clip_grad_norm
    taken: list[int] = []

    def norm(parameters: Any, limit: float) -> torch.Tensor:
        steps.append(real(parameters, limit).item())
        return torch.tensor(math.inf if len(steps) in (2, 3) else steps[-1])

    optimizer = training.Optimizer.step
    monkeypatch.setattr(training, "clip_grad_norm", norm)
    monkeypatch.setattr(
        training.Optimizer, "step", lambda self: (taken.append(len(steps)), optimizer(self))
    )
    flags = {"training.steps": 5, "training.eval_every": 5, "training.warmup": 1}
    train(small(**flags, **{"training.dtype": "float16"}), run="half", events=ignore)
    assert taken == [1, 4, 5]
    state = read_header("checkpoints/half_last.safetensors").state
    assert (state["loss_scale"], state["scale_steps"]) == (FIRST / 4, 2)
    steps.clear()
    with pytest.raises(TrainingError, match="diverged at step 2"):
        train(small(**flags), run="full", events=ignore)
