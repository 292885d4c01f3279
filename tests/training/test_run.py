"""Whole small runs: exact resume, every way to stop, and what must never be lost."""

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
from safetensors.torch import load_file

from holo_cli import registry
from holo_cli.checkpoint import RunLock, load_model, read_header
from holo_cli.config import Resolved
from holo_cli.errors import CheckpointError, DataError, Stopped, TrainingError, UsageError
from holo_cli.training import loop as loop_module
from holo_cli.training.run import resume, train
from holo_cli.training.stopping import StopRequest

from .conftest import smallest

Small = Callable[..., Resolved]
CHECKPOINTS = Path("checkpoints")


def ignore(event: dict[str, Any]) -> None:
    pass


def same_files(a: str, b: str) -> None:
    """Two runs' last checkpoints agree in every bit of every tensor, and in their counters."""
    first = load_file(CHECKPOINTS / f"{a}_last.safetensors")
    second = load_file(CHECKPOINTS / f"{b}_last.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    states = [read_header(CHECKPOINTS / f"{run}_last.safetensors").state for run in (a, b)]
    for state in states:
        for timing in ("train_seconds", "eval_seconds"):
            state.pop(timing)
        for row in (*state["history"], *state["stages"]):
            row.pop("train_seconds")
    assert states[0] == states[1]


def test_a_model_is_told_how_far_the_run_is(small: Small, home: Path) -> None:
    """brain-v1's winners fall over the first steps: by the step, so also after a stop."""
    kwta = {"model.sparsity": "kwta", "model.mlp_ratio": 5.0, "model.dense_start": 0.8}
    config = small("brain-v1", **kwta)
    whole = train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="halves", stop_at=5, events=ignore)
    resume("halves", events=ignore)
    same_files("whole", "halves")
    plain = train(small("brain-v1", **kwta | {"model.dense_start": 0.0}), run="k", events=ignore)
    assert plain["val_loss"] != whole["val_loss"]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("at", [1, 5, 7])
def test_stop_and_resume_equals_not_stopping(
    small: Small, home: Path, optimizer: str, at: int
) -> None:
    config = small(**{"training.optimizer": optimizer})
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped) as stopped:
        train(config, run="halves", stop_at=at, events=ignore)
    assert stopped.value.exit_code == 3
    assert read_header(CHECKPOINTS / "halves_last.safetensors").step == at
    done = resume("halves", events=ignore)
    assert done["stopped_by"] == "steps"
    same_files("whole", "halves")


class StopAfter(StopRequest):
    """Asks to stop when looked at for the n-th time: once before every micro-step."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            self.ask("signal")
        return bool(self.reason)


@pytest.mark.parametrize("micro_steps", [1, 8, 17, 23])
def test_resume_is_exact_in_the_middle_of_an_accumulation(
    small: Small, home: Path, micro_steps: int
) -> None:
    config = small()
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(micro_steps), events=ignore)
    header = read_header(CHECKPOINTS / "parts_last.safetensors")
    assert header.state["micro"] == micro_steps % 3
    with pytest.raises(Stopped):  # and stopped once more, elsewhere
        resume("parts", stop=StopAfter(5), events=ignore)
    resume("parts", events=ignore)
    same_files("whole", "parts")


def test_resume_is_exact_across_the_end_of_an_epoch(small: Small, home: Path) -> None:
    # windows of 16 tokens: an epoch of this set ends inside step 9 of 12 with these batches
    config = small(**{"training.batch_size": 13})
    train(config, run="whole", events=ignore)
    epochs = read_header(CHECKPOINTS / "whole_last.safetensors").state["windows"]
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(25), events=ignore)
    resume("parts", events=ignore)
    same_files("whole", "parts")
    assert epochs > 6000 / 16  # the run did go past the end of the data


def test_extending_a_finished_run(small: Small, home: Path) -> None:
    train(small(), run="short", events=ignore)
    with pytest.raises(UsageError, match="is done"):
        resume("short", events=ignore)
    done = resume("short", steps=15, events=ignore)
    assert done["step"] == 15
    assert read_header(CHECKPOINTS / "short_last.safetensors").config["training"]["steps"] == 15


def test_metrics_of_a_resumed_run_read_as_one_run(small: Small, home: Path) -> None:
    config = small()
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="parts", stop_at=7, events=ignore)
    log = home / "runs/parts/metrics.jsonl"
    # a crash after step 7 would leave rows of steps that were never saved
    stray = json.dumps({"event": "train", "step": 8, "loss": 1.0}) + '\n{"event": "tra'
    log.write_text(log.read_text(encoding="utf-8") + stray, encoding="utf-8")
    resume("parts", events=ignore)

    def losses(run: str) -> list[Any]:
        text = Path(f"runs/{run}/metrics.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        keep = [r for r in rows if r["event"] in ("train", "eval")]
        return [(r["event"], r["step"], r.get("loss"), r.get("val_loss")) for r in keep]

    assert losses("parts") == losses("whole")
    assert [row[:2] for row in losses("whole")] == [
        ("train", 4), ("eval", 5), ("train", 8), ("eval", 10), ("train", 12), ("eval", 12),
    ]  # fmt: skip
    assert list((home / "runs/whole").glob("events.out.tfevents.*"))


def test_events_and_final_keys(small: Small, home: Path) -> None:
    events: list[dict[str, Any]] = []
    done = train(small(), run="a", events=events.append, sampler=lambda *_: "text")
    kinds = [e["event"] for e in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert {"train", "eval", "save"} <= set(kinds)
    asked = {
        "best", "last", "val_loss", "bpb", "steps", "tokens", "train_seconds", "eval_seconds",
        "tokens_per_second", "peak_rss_bytes", "parameters", "stopped_by",
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
    with pytest.raises(DataError, match="one context of 100000 needs"):
        train(small(**{"model.context": 100_000}), run="a", events=ignore)
    assert not list(CHECKPOINTS.glob("*.safetensors"))
    with pytest.raises(DataError, match="no prepared set"):
        train(small(**{"data.path": "nowhere"}), run="a", events=ignore)


def test_resume_refuses_other_data_and_files_without_state(small: Small, home: Path) -> None:
    from holo_cli.data.prepare import prepare

    from .conftest import write_text

    source = write_text(home / "mine.txt")
    prepare(["mine"], source=str(source), out=home / "data/mine", tokenizer="char")
    config = small(**{"data.path": "mine"})
    with pytest.raises(Stopped):
        train(config, run="a", stop_at=6, events=ignore)
    with pytest.raises(CheckpointError, match="weights only"):
        resume(CHECKPOINTS / "a_best.safetensors", events=ignore)
    write_text(source, seed=5)
    prepare(["mine"], source=str(source), out=home / "data/mine", tokenizer="char", force=True)
    with pytest.raises(DataError, match="prepared anew"):
        resume("a", events=ignore)


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
        patched.setattr("holo_cli.training.metrics.atomic_write_text", no_log)
        with pytest.raises(TrainingError, match="Cannot write the log"):
            resume("a", events=ignore)
    with monkeypatch.context() as patched:
        patched.setattr("holo_cli.checkpoint.write.atomic_file", no_file)
        with pytest.raises(CheckpointError, match="No room"):
            resume("a", events=ignore)
    assert (CHECKPOINTS / "a_last.safetensors").read_bytes() == before
    assert resume("a", events=ignore)["step"] == 12


@pytest.mark.parametrize("name", registry.model_names())
def test_every_model_resumes_to_the_bit(small: Small, home: Path, name: str) -> None:
    shape = smallest(name)
    config = small(name, **shape, **{"training.steps": 6, "training.eval_every": 3})
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(10), events=ignore)
    resume("parts", events=ignore)
    same_files("whole", "parts")


def test_the_classic_recipe_trains_and_resumes(small: Small, home: Path) -> None:
    config = small().replace({"model.recipe": "classic", "training.optimizer": "adamw"})
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="parts", stop_at=4, events=ignore)
    resume("parts", events=ignore)
    same_files("whole", "parts")
    model, _, _ = load_model(CHECKPOINTS / "parts_best.safetensors")
    assert type(model).__name__ == "Classic"


def test_a_shorter_context_first_reads_the_same_tokens(small: Small, home: Path) -> None:
    config = small(**{"training.ramp_steps": 0.5, "training.ramp_context": 4})
    done = train(config, run="whole", events=ignore)
    assert done["tokens"] == 12 * 3 * 4 * 16
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(16), events=ignore)
    resume("parts", events=ignore)
    same_files("whole", "parts")


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
    with pytest.raises(UsageError, match="would go on as run 'a', and overwrite") as error:
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


@pytest.mark.parametrize("how", [{"data.document_mask": True}, {"data.balance": True}])
def test_resume_is_exact_however_rows_are_read(
    small: Small, home: Path, how: dict[str, bool]
) -> None:
    from holo_cli.data.prepare import prepare

    prepare(["stories"], out=home / "both", tokenizer="char", max_bytes=40_000)
    config = small(**{"data.path": str(home / "both"), "training.batch_size": 5}, **how)
    events: list[dict[str, Any]] = []
    done = train(config, run="whole", events=events.append)
    if "data.document_mask" in how:
        assert events[0]["filled"] < 1
        assert done["tokens"] < 12 * 3 * 5 * 16  # what fills rows up is no token
    else:
        assert done["tokens"] == 12 * 3 * 5 * 16
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(17), events=ignore)
    resume("parts", events=ignore)
    same_files("whole", "parts")


def test_a_step_is_the_mean_over_its_tokens_whatever_the_rows_lengths(
    small: Small, home: Path
) -> None:
    """Masked rows in 12 micro-steps of one row, or in one of 12: the same gradients."""
    shape = {"data.document_mask": True, "model.dropout": 0.0, "training.steps": 3}
    one = small(**shape, **{"training.batch_size": 12, "training.grad_accum": 1})
    many = small(**shape, **{"training.batch_size": 1, "training.grad_accum": 12})
    for run, config in (("one", one), ("many", many)):
        train(config.replace({"training.eval_every": 1}), run=run, events=ignore)
    rows = [read_header(CHECKPOINTS / f"{run}_last.safetensors") for run in ("one", "many")]
    for a, b in zip(rows[0].history, rows[1].history, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-5)
        assert a["tokens"] == b["tokens"]
