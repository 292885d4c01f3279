"""Exact resume: a run that was stopped anywhere ends with the bits of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from holo_cli.checkpoint import load_model, read_header
from holo_cli.config.resolve import Resolved
from holo_cli.errors import Stopped, UsageError
from holo_cli.training.run import resume, train
from holo_cli.training.stopping import StopRequest
from tests.checkpoint.old_format import rewrite_as_format_1
from tests.training.conftest import same_files

Small = Callable[..., Resolved]
CHECKPOINTS = Path("checkpoints")


def ignore(event: dict[str, Any]) -> None:
    pass


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


@pytest.mark.parametrize("model", ["vanilla", "gated-deltanet", "holographic"])
def test_a_run_of_format_1_resumes(small: Small, home: Path, model: str) -> None:
    """Muon's state was a bare tensor under the parameter's name, and some names were others; that
    holds for optimizer state and for gradients of an unfinished accumulation too."""
    config = small(model)
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="old", stop=StopAfter(10), events=ignore)
    rewrite_as_format_1(CHECKPOINTS / "old_last.safetensors")
    with safe_open(CHECKPOINTS / "old_last.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "momentum_buffer" in name]  # noqa: SIM118
    resume("old", events=ignore)
    same_files("whole", "old")


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
    with pytest.raises(UsageError, match="is finished"):
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


def test_resume_refuses_other_data(small: Small, home: Path) -> None:
    from holo_cli.data.prepare.prepare import prepare
    from tests.training.conftest import write_text

    source = write_text(home / "mine.txt")
    prepare(["mine"], source=str(source), out=home / "data/mine", tokenizer="char")
    config = small(**{"data.path": "mine"})
    with pytest.raises(Stopped):
        train(config, run="a", stop_at=6, events=ignore)


@pytest.mark.parametrize("name", ["holographic", "ngt"])
def test_a_run_of_an_older_format_resumes_to_the_bit(small: Small, home: Path, name: str) -> None:
    """Names of parameters have changed since format 1: gradients and optimizer state as well."""
    config = small(name, **{"training.steps": 6, "training.eval_every": 3})
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(10), events=ignore)
    rewrite_as_format_1(CHECKPOINTS / "parts_last.safetensors")
    resume("parts", events=ignore)
    same_files("whole", "parts")


def test_without_training_state_the_weights_go_on(small: Small, home: Path) -> None:
    train(small(**{"training.eval_every": 4}), run="a", events=ignore)
    (CHECKPOINTS / "a_last.safetensors").unlink()
    best = read_header(CHECKPOINTS / "a_best.safetensors")
    events: list[dict[str, Any]] = []
    done = resume("a", steps=best.step + 4, events=events.append)
    start, warning, *_ = events
    assert (start["event"], start["step"]) == ("start", best.step)
    assert warning["event"] == "warning"
    assert (
        f"continues from step {best.step} with its weights and a fresh optimizer"
        in warning["message"]
    )
    assert (done["steps"], done["tokens"]) == (
        best.step + 4,
        best.tokens // best.step * done["steps"],
    )
    last = read_header(CHECKPOINTS / "a_last.safetensors")
    assert last.history[: len(best.history)] == best.history
    resume("a", steps=best.step + 6, events=ignore)  # exact again


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


@pytest.mark.parametrize("how", [{"data.document_mask": True}, {"data.balance": True}])
def test_resume_is_exact_however_rows_are_read(
    small: Small, home: Path, how: dict[str, bool]
) -> None:
    from holo_cli.data.prepare.prepare import prepare

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
