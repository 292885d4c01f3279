"""Whole small runs: every way to stop, and what must never be lost."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from holo_cli.checkpoint import RunLock, load_model, read_header
from holo_cli.checkpoint.unfinished import unfinished_runs
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.errors import CheckpointError, DataError, Stopped, TrainingError, UsageError
from holo_cli.training import trainer as loop_module
from holo_cli.training.build import initial_model
from holo_cli.training.run import resume, train
from tests.training.conftest import same_files

Small = Callable[..., Resolved]
CHECKPOINTS = Path("checkpoints")


def ignore(event: dict[str, Any]) -> None:
    pass


def test_events_and_final_keys(small: Small, home: Path) -> None:
    events: list[dict[str, Any]] = []
    done = train(small(), run="a", events=events.append, sampler=lambda *_: "text")
    kinds = [e["event"] for e in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert {"train", "eval", "save"} <= set(kinds)
    asked = {
        "best", "last", "val_loss", "bpb", "steps", "tokens", "train_seconds", "eval_seconds",
        "tokens_per_second", "peak_rss_bytes", "parameters", "only_continues", "stopped_by",
    }  # fmt: skip
    assert asked <= done.keys()
    assert done["steps"] == 12
    assert done["tokens"] == 12 * 3 * 4 * 16
    assert events[0]["memory_bytes"] > 0
    last_eval = [e for e in events if e["event"] == "eval"][-1]
    assert last_eval["val_loss"] == done["val_loss"]
    assert math.isclose(
        json.loads(json.dumps(done))["bpb"] * math.log(2), done["val_loss"], rel_tol=0.02
    )  # characters of ASCII: a byte a token, but for the ends of documents


def test_target_loss_and_time_limit_end_a_run_with_everything_saved(
    small: Small, home: Path
) -> None:
    done = train(small(**{"training.target_loss": 100.0}), run="target", events=ignore)
    assert (done["stopped_by"], done["step"]) == ("target-loss", 5)
    done = train(small(**{"training.time_limit": 1e-6}), run="time", events=ignore)
    assert (done["stopped_by"], done["step"]) == ("time-limit", 1)
    assert done["val_loss"] is not None
    for run in ("target", "time"):
        assert read_header(CHECKPOINTS / f"{run}_last.safetensors").kind == "last"


def test_the_best_checkpoint_is_the_best(small: Small, home: Path) -> None:
    config = small(**{"training.steps": 20, "training.eval_every": 2, "training.lr": 0.3})
    train(config, run="a", events=ignore)
    history = read_header(CHECKPOINTS / "a_last.safetensors").history
    best = min(history, key=lambda row: row["val_loss"])
    header = read_header(CHECKPOINTS / "a_best.safetensors")
    assert header.step == best["step"]
    assert header.losses.val == best["val_loss"]
    assert header.state == {}
    load_model(CHECKPOINTS / "a_best.safetensors")


def test_divergence_stops_and_keeps_the_last_good_checkpoint(
    small: Small, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop_module.cross_entropy
    calls = 0

    def breaks(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = real(*args, **kwargs)
        return loss * math.nan if calls == 20 else loss  # inside step 7, after the save of step 5

    monkeypatch.setattr(loop_module, "cross_entropy", breaks)
    with pytest.raises(TrainingError, match=r"diverged at step 7.*step 5 is untouched") as error:
        train(small(), run="a", events=ignore)
    assert "--lr" in error.value.next_step
    model, _, header = load_model(CHECKPOINTS / "a_last.safetensors")
    assert header.step == 5
    assert all(p.isfinite().all() for p in model.parameters())


def test_out_of_memory_names_flags(
    small: Small, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")

    monkeypatch.setattr(loop_module, "cross_entropy", full)
    with pytest.raises(TrainingError, match="Out of memory at step 1") as error:
        train(small(), run="a", events=ignore)
    for flag in ("--batch-size 2 --grad-accum 6", "--grad-checkpoint", "--context 8"):
        assert flag in error.value.next_step

    def other(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(loop_module, "cross_entropy", other)
    with pytest.raises(RuntimeError, match="mat1"):  # other faults are not dressed up
        train(small(), run="b", events=ignore)


def test_names_of_runs(small: Small, home: Path) -> None:
    config = small(**{"training.steps": 2})
    assert train(config, events=ignore)["run"] == "vanilla-words"
    assert train(config, events=ignore)["run"] == "vanilla-words-2"
    train(config, run="mine", events=ignore)
    with pytest.raises(UsageError, match="exists already"):
        train(config, run="mine", events=ignore)
    train(config, run="mine", force=True, events=ignore)


def test_two_writers_of_one_run_are_refused(small: Small, home: Path) -> None:
    with (
        RunLock(CHECKPOINTS, "taken"),
        pytest.raises(CheckpointError, match="is being written"),
    ):
        train(small(), run="taken", events=ignore)


def test_data_that_does_not_fit(small: Small, home: Path) -> None:
    with pytest.raises(DataError, match="a context of 100000 needs"):
        train(small(**{"model.context": 100_000}), run="a", events=ignore)
    assert not list(CHECKPOINTS.glob("*.safetensors"))
    with pytest.raises(DataError, match="no prepared set"):
        train(small(**{"data.path": "nowhere"}), run="a", events=ignore)


def test_a_full_disk_loses_nothing(
    small: Small, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        train(small(), run="a", stop_at=5, events=ignore)
    before = (CHECKPOINTS / "a_last.safetensors").read_bytes()

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_log(*args: Any) -> None:
        raise full

    @contextmanager
    def no_file(path: Path) -> Iterator[BinaryIO]:
        with path.with_suffix(".beside").open("wb") as file:
            yield file
        raise full

    with monkeypatch.context() as patched:
        patched.setattr("holo_cli.training.metrics.atomic_write_bytes", no_log)
        with pytest.raises(TrainingError, match="Cannot write the log"):
            resume("a", events=ignore)
    with monkeypatch.context() as patched:
        patched.setattr("holo_cli.checkpoint.write.atomic_file", no_file)
        with pytest.raises(CheckpointError, match="No room"):
            resume("a", events=ignore)
    assert (CHECKPOINTS / "a_last.safetensors").read_bytes() == before
    assert resume("a", events=ignore)["step"] == 12


def test_forcing_replaces_a_run_only_once_something_new_is_saved(small: Small, home: Path) -> None:
    train(small(), run="a", events=ignore)
    old = (CHECKPOINTS / "a_best.safetensors").read_bytes()
    with pytest.raises(DataError):
        train(small(**{"model.context": 100_000}), run="a", force=True, events=ignore)
    assert (CHECKPOINTS / "a_best.safetensors").read_bytes() == old
    with pytest.raises(Stopped):  # before the first evaluation of the new run
        train(small(), run="a", force=True, stop_at=2, events=ignore)
    assert not (CHECKPOINTS / "a_best.safetensors").exists()
    assert read_header(CHECKPOINTS / "a_last.safetensors").step == 2
    assert resume("a", events=ignore)["best"] is not None


def test_stopping_at_the_last_step_is_being_done(small: Small, home: Path) -> None:
    assert train(small(), run="a", stop_at=12, events=ignore)["stopped_by"] == "steps"


@pytest.mark.parametrize("ramp", [3, 32])
def test_a_ramp_that_does_not_fit_the_context(small: Small, home: Path, ramp: int) -> None:
    config = small(**{"training.ramp_steps": 0.5, "training.ramp_context": ramp})
    with pytest.raises(UsageError, match="must divide"):
        train(config, run="a", events=ignore)
    assert not CHECKPOINTS.exists()


def test_a_checkpoint_from_elsewhere_never_overwrites_another_run(small: Small, home: Path) -> None:
    with pytest.raises(Stopped):
        train(small(), run="a", stop_at=5, events=ignore)
    other = home / "elsewhere"
    other.mkdir()
    (CHECKPOINTS / "a_last.safetensors").rename(other / "copied.safetensors")
    for file in CHECKPOINTS.glob("*.safetensors"):
        file.unlink()
    # no run of that name here: it goes on under the name that is in the file
    with pytest.raises(Stopped):
        resume(other / "copied.safetensors", stop_at=7, events=ignore)
    assert read_header(CHECKPOINTS / "a_last.safetensors").step == 7
    before = (CHECKPOINTS / "a_last.safetensors").read_bytes()
    with pytest.raises(UsageError, match="would resume as run 'a' and overwrite") as error:
        resume(other / "copied.safetensors", events=ignore)
    assert "--run a-2" in error.value.next_step
    train(small(), run="b", events=ignore)
    with pytest.raises(UsageError, match="overwrite"):  # nor by a name given by hand
        resume("a", run="b", events=ignore)
    assert (CHECKPOINTS / "a_last.safetensors").read_bytes() == before
    done = resume(other / "copied.safetensors", run="a-2", events=ignore)
    assert (done["run"], done["step"]) == ("a-2", 12)
    resume("a", events=ignore)  # its own name needs no flag
    same_files("a", "a-2")


def test_a_step_is_the_mean_over_its_tokens_whatever_the_rows_lengths(
    small: Small, home: Path
) -> None:
    """Masked rows in 12 micro-steps of one row, or in one of 12: the same gradients."""
    shape = {
        "data.document_mask": True, "model.dropout": 0.0, "training.steps": 3,
        "training.unlikelihood": 0.5,
    }  # fmt: skip
    one = small(**shape, **{"training.batch_size": 12, "training.grad_accum": 1})
    many = small(**shape, **{"training.batch_size": 1, "training.grad_accum": 12})
    for run, config in (("one", one), ("many", many)):
        train(config.replace({"training.eval_every": 1}), run=run, events=ignore)
    rows = [read_header(CHECKPOINTS / f"{run}_last.safetensors") for run in ("one", "many")]
    for a, b in zip(rows[0].history, rows[1].history, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-5)
        assert a["tokens"] == b["tokens"]


def test_the_penalty_on_repeats_is_reported_apart_from_the_loss(small: Small, home: Path) -> None:
    """The first step's loss is that without it; the second's gradients are not."""
    found: dict[float, list[dict[str, Any]]] = {}
    for weight in (0.0, 1.0):
        events = found[weight] = []
        shape = {"model.dropout": 0.0, "training.steps": 2, "training.log_every": 1}
        config = small(**shape, **{"training.unlikelihood": weight})
        train(config, run=f"weight-{weight:.0f}", events=events.append)
    plain, other = ([e for e in found[w] if e["event"] == "train"] for w in (0.0, 1.0))
    assert other[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-6)
    assert other[0]["grad_norm"] != pytest.approx(plain[0]["grad_norm"], rel=1e-3)
    # some ten of thirty tokens were seen in the row, each with about 1/30: -log(29/30) of each
    assert 0.1 < other[0]["aux"]["unlikelihood"] < 0.6
    assert "aux" not in plain[0]
    header = read_header(CHECKPOINTS / "weight-1_last.safetensors")
    assert header.config["training"]["unlikelihood"] == 1.0
    # evaluation knows nothing of it: about log of the vocabulary, not twice as much
    assert header.losses.val == pytest.approx(other[1]["loss"], abs=0.3)


def test_another_seed_of_the_initial_weights_leaves_the_data_and_the_dropout_alone() -> None:
    """Equal seeds of the weights give equal weights; what is drawn after depends on the seed."""
    shape = resolve("vanilla", "tiny").model.model_copy(
        update={"vocab_size": 30, "width": 16, "heads": 2, "layers": 1}
    )

    def made(**seeds: Any) -> tuple[torch.Tensor, float]:
        model = initial_model("vanilla", shape, TrainingConfig(**seeds))
        return torch.cat([p.flatten() for p in model.parameters()]), float(torch.rand(()))

    plain, own, other = made(seed=3), made(seed=3, init_seed=4), made(seed=4)
    assert not torch.equal(plain[0], own[0])
    assert torch.equal(own[0], other[0])
    assert own[1] == made(seed=3, init_seed=5)[1] != made(seed=4, init_seed=5)[1]


def test_a_seed_of_the_initial_weights_changes_the_run_not_its_batches(
    small: Small, home: Path
) -> None:
    losses = []
    for number, seed in enumerate((None, small().training.seed, 7)):
        changed: dict[str, Any] = {"training.init_seed": seed, "model.dropout": 0.0}
        losses.append(train(small(**changed), run=f"r{number}", events=ignore)["val_loss"])
    assert losses[0] == losses[1] != losses[2]  # the run's own seed is 0


def test_resume_without_a_name_takes_the_newest_unfinished_run(small: Small, home: Path) -> None:
    for name in ("old", "new"):
        with pytest.raises(Stopped):
            train(small(), run=name, stop_at=2, events=ignore)
    train(small(**{"training.steps": 3}), run="done", events=ignore)
    damaged = CHECKPOINTS / "damaged_last.safetensors"
    damaged.write_bytes(b"nothing")
    found = [(run.run, run.step, run.steps) for run in unfinished_runs()]
    assert found == [("new", 2, 12), ("old", 2, 12)]
    assert [run.run for run in unfinished_runs(steps=5)] == ["done", "new", "old"]
    damaged.unlink()
    assert resume(None, events=ignore)["run"] == "new"
    assert resume(None, events=ignore)["run"] == "old"
    with pytest.raises(UsageError, match="Every run in checkpoints is finished"):
        resume(None, events=ignore)
    assert resume(None, steps=13, events=ignore)["step"] == 13


def test_a_run_ended_by_its_target_is_finished(small: Small, home: Path) -> None:
    train(small(**{"training.target_loss": 99.0}), run="a", events=ignore)
    assert unfinished_runs() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stop_at": 2}, "--stop-at 2 must be after step 2 and at most 12"),
        ({"stop_at": 13}, "--stop-at 13 must be after step 2"),
        ({"steps": 2}, "--steps 2 is not after the step that run 'a' has reached, 2"),
    ],
)
def test_the_end_of_a_resumed_run_is_checked(
    given: dict[str, int], message: str, small: Small, home: Path
) -> None:
    with pytest.raises(UsageError, match="--stop-at 0 must be after step 0"):
        train(small(), run="a", stop_at=0, events=ignore)
    with pytest.raises(Stopped):
        train(small(), run="a", stop_at=2, events=ignore)
    with pytest.raises(UsageError, match=message):
        resume("a", events=ignore, **given)
