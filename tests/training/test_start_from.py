"""Runs that start from the weights of another (`train --from`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.checkpoint import load_training, read_header
from holo_cli.config.resolve import Resolved, resolve_from
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import DataError, HoloError, UsageError
from holo_cli.training.run import resume, train
from holo_cli.training.start_from import Start, open_start
from tests.training.conftest import SMALL, write_text

Small = Callable[..., Resolved]


def ignore(event: dict[str, Any]) -> None:
    pass


@pytest.fixture
def first(home: Path, small: Small) -> Start:
    train(small(**{"training.target_loss": 0.001}), run="first", events=ignore)
    return open_start("first")


def config(start: Start, *sets: str, **flags: Any) -> Resolved:
    return resolve_from(start.stored(), start.path.as_posix(), sets=sets, flags=flags, env={})


def test_the_first_evaluation_is_that_of_the_checkpoint(first: Start) -> None:
    events: list[dict[str, Any]] = []
    resolved = config(first, **{"training.steps": 3, "training.lr": 0.001})
    train(resolved, run="second", events=events.append, start=first)
    (before, *_) = [event for event in events if event["event"] == "eval"]
    assert before["step"] == 0
    assert before["val_loss"] == pytest.approx(first.header.losses.val, abs=1e-6)
    assert events[0]["origin"]["run"] == "first"
    _, tensors = load_training(Path("checkpoints/second_last.safetensors"))
    moved = [
        name for name, t in first.tensors.items() if not torch.equal(t, tensors[f"model/{name}"])
    ]
    assert moved, "three steps change weights"


def test_a_rate_of_almost_nothing_keeps_the_weights(first: Start) -> None:
    resolved = config(
        first, **{"training.steps": 2, "training.lr": 1e-12, "training.adam_lr": 1e-12}
    )
    train(resolved, run="second", events=ignore, start=first)
    _, tensors = load_training(Path("checkpoints/second_last.safetensors"))
    for name, tensor in first.tensors.items():
        torch.testing.assert_close(tensors[f"model/{name}"], tensor, rtol=0, atol=1e-6)


def test_settings_are_the_checkpoints_but_for_its_end(first: Start) -> None:
    resolved = config(first, "model.dropout=0", **{"training.steps": 4})
    assert (resolved.model.width, resolved.model.dropout, resolved.training.steps) == (16, 0.0, 4)
    assert resolved.training.target_loss is None  # that of the other run
    assert resolved.data.path == first.header.config["data"]["path"]
    assert resolved.provenance["model.width"] == "checkpoint checkpoints/first_best.safetensors"
    assert resolved.provenance["training.steps"] == "--steps"


def test_the_lineage_is_kept_over_generations_and_a_resume(first: Start) -> None:
    train(config(first, **{"training.steps": 2}), run="second", events=ignore, start=first)
    second = open_start("second")
    resolved = config(second, **{"training.steps": 4})
    with pytest.raises(HoloError, match="everything is saved"):
        train(resolved, run="third", events=ignore, start=second, stop_at=2)
    resume("third", events=ignore)
    header = read_header(Path("checkpoints/third_last.safetensors"))
    assert [(row.run, row.data) for row in header.origins] == [
        ("first", "words"),
        ("second", "words"),
    ]
    assert header.origins[0].step == first.header.step


def test_a_grown_model_starts_at_its_depth(home: Path, small: Small) -> None:
    growing = {"model.layers": 2, "model.growth": [1], "training.steps": 10}
    with pytest.raises(HoloError, match="everything is saved"):
        train(small("brain-v1", **growing), run="young", events=ignore, stop_at=2)
    start = open_start(Path("checkpoints/young_last.safetensors"))
    resolved = config(start, **{"training.steps": 2})
    assert (resolved.model.layers, resolved.model.stages()) == (1, ())
    train(resolved, run="adult", events=ignore, start=start)


def test_another_tokenizer_is_refused(first: Start, tmp_path: Path) -> None:
    source = write_text(tmp_path / "other.txt")
    prepare(["other"], source=str(source), out=tmp_path / "other", tokenizer="bpe", vocab_size=270)
    with pytest.raises(DataError, match="another tokenizer than the checkpoint"):
        train(config(first, **{"data.path": str(tmp_path / "other")}), events=ignore, start=first)
    assert not list(Path("checkpoints").glob("vanilla*"))


def test_a_setting_that_changes_a_weights_shape_is_named(first: Start) -> None:
    with pytest.raises(UsageError, match=r"do not fit the changed model \(model.width\)"):
        train(config(first, "model.width=32"), events=ignore, start=first)


def test_another_model_is_refused(first: Start) -> None:
    with pytest.raises(UsageError, match="is a checkpoint of model 'vanilla', not of 'ngt'"):
        open_start("first", "ngt")
    assert open_start("first", "vanilla").header.step == SMALL["training.steps"]
