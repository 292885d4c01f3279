"""Growth in stages, driven by the trainer: nothing jumps or is lost, any stop is gone on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from holo_cli import registry
from holo_cli.checkpoint import inspect_checkpoint, load_model, read_header, save
from holo_cli.checkpoint.read import TensorFile
from holo_cli.config.model_schema import Stage
from holo_cli.config.resolve import Resolved
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import CheckpointError, Stopped
from holo_cli.export import export
from holo_cli.training import reports
from holo_cli.training.build import build_trainer, train_batches
from holo_cli.training.calibrate import steps_within
from holo_cli.training.growth import first_step, grow, layers_due, steps_left
from holo_cli.training.run import resume, train
from holo_cli.training.trainer import Trainer
from tests.training.conftest import same_files, smallest
from tests.training.growing import register
from tests.training.test_resume import CHECKPOINTS, StopAfter, ignore

STAGES = (Stage(0.0, 1), Stage(0.25, 2), Stage(0.5, 4))
Growing = Callable[..., Resolved]


@pytest.fixture
def growing(small: Callable[..., Resolved], monkeypatch: pytest.MonkeyPatch) -> Growing:
    """growing(**changes) -> a config of 12 steps: 1 block, 2 from step 3 on, 4 from step 6 on."""
    register(monkeypatch)

    def make(**changes: Any) -> Resolved:
        return small("growing", **{"model.layers": 4} | changes)

    return make


def header_of(run: str, kind: str = "last") -> Any:
    return read_header(CHECKPOINTS / f"{run}_{kind}.safetensors")


# -- the schedule ---------------------------------------------------------------------------------


def test_each_step_has_the_depth_of_its_stage() -> None:
    assert [layers_due(STAGES, step, 12) for step in range(12)] == [1] * 3 + [2] * 3 + [4] * 6
    assert [first_step(stage, 10) for stage in STAGES] == [0, 3, 5]  # 2.5 is rounded up
    assert first_step(Stage(0.29, 2), 100) == 29  # and not 28: 0.29 * 100 is a little below 29
    assert [layers_due(STAGES, step, 2) for step in range(2)] == [1, 4]  # both begin at step 1
    assert layers_due(STAGES, 0, 1) == 2  # a stage may be over before it began
    assert layers_due((), 5, 10) == 0


def test_the_work_that_is_left_counts_deeper_steps_more() -> None:
    assert steps_left((), 4, 12, 6) == 8
    assert steps_left(STAGES, 0, 12, 1) == 3 * 1 + 3 * 2 + 6 * 4
    assert steps_left(STAGES, 4, 12, 2) == 2 * 1 + 6 * 2
    assert steps_left(STAGES, 8, 12, 4) == 4
    # a run made longer is deeper than its stage asks for; it stays so
    assert steps_left(STAGES, 6, 24, 4) == 18


def test_steps_made_without_run_grow(growing: Growing, home: Path) -> None:
    """Benches make steps by themselves; the model must be trained as in a run."""
    config = growing()
    data = PreparedData.open(config.data.path)
    config = config.replace({"model.vocab_size": data.tokenizer.vocab_size}, source="test")
    model = registry.build_model("growing", config.model.at_depth(1))
    events: list[dict[str, Any]] = []
    trainer = build_trainer(config, model, train_batches(config, data), events=events.append)
    depths = []
    for _ in range(config.training.steps):
        assert trainer.step()
        depths.append(trainer.model.config.layers)
    assert depths == [1] * 3 + [2] * 3 + [4] * 6
    assert [event["stage"] for event in events] == [1, 2, 3]
    assert not any("loss_before" in event for event in events)  # there is no text to take it on


def test_calibration_goes_through_the_depths(
    growing: Growing, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths = []
    step = Trainer.step

    def watched(trainer: Trainer) -> bool:
        done = step(trainer)
        depths.append(trainer.model.config.layers)
        return done

    monkeypatch.setattr(Trainer, "step", watched)
    assert steps_within(growing(), 1.0) >= 1
    assert depths == [1] * 3 + [2] * 3 + [4] * 5


# -- the passage from one depth to the next -------------------------------------------------------


def trained(config: Resolved, steps: int) -> Trainer:
    """A trainer that has made some steps at the depth it began with."""
    data = PreparedData.open(config.data.path)
    config = config.replace({"model.vocab_size": data.tokenizer.vocab_size}, source="test")
    torch.manual_seed(0)
    model = registry.build_model("growing", config.model.at_depth(2))
    trainer = build_trainer(config, model, train_batches(config, data), stages=())
    for _ in range(steps):
        trainer.step()
    return trainer


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("how", ["identity", "copy"])
def test_moments_are_carried_by_name_and_new_ones_are_fresh(
    growing: Growing, home: Path, how: str, optimizer: str
) -> None:
    trainer = trained(growing(**{"model.how": how, "training.optimizer": optimizer}), 3)
    old = {name: t.clone() for name, t in trainer.optimizer.state_tensors().items()}
    before = torch.get_rng_state()
    model, optim = grow(trainer.model, trainer.optimizer, 4, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    new = optim.state_tensors()
    assert new.keys() > old.keys() if how == "copy" or optimizer == "muon" else True
    for name, tensor in new.items():
        was = name
        if name not in old:
            assert "blocks.2." in name or "blocks.3." in name
            was = name.replace("blocks.2.", "blocks.0.").replace("blocks.3.", "blocks.1.")
        if was == name or how == "copy":
            assert torch.equal(tensor, old[was]), name
            assert tensor.data_ptr() != trainer.optimizer.state_tensors()[was].data_ptr()
        else:
            assert not tensor.any(), name  # Muon's buffers; AdamW begins without any
    names = {name.split("/")[1] for name in new}
    unborn = {name for name, _ in model.named_parameters()} - names
    if how == "identity":
        by_muon = set(model.matrices()) if optimizer == "muon" else set()
        grown = {n for n, _ in model.named_parameters() if n[:9] in ("blocks.2.", "blocks.3.")}
        assert unborn == grown - by_muon
    else:
        assert not unborn
    trainer._set_model(model, optim)
    assert trainer.step()  # and the deeper model trains, new blocks too
    assert all(p.isfinite().all() for p in model.parameters())
    by_adam = {n.split("/")[1] for n in optim.state_tensors() if n[:4] == "adam"}
    assert by_adam == {n for group in optim.adam.param_groups for n in group["param_names"]}


def test_growing_draws_the_same_wherever_the_random_state_is(growing: Growing, home: Path) -> None:
    trainer = trained(growing(), 1)
    torch.manual_seed(1)
    one, _ = grow(trainer.model, trainer.optimizer, 4, seed=0)
    torch.manual_seed(2)
    two, _ = grow(trainer.model, trainer.optimizer, 4, seed=0)
    other, _ = grow(trainer.model, trainer.optimizer, 4, seed=1)
    name = "blocks.3.mlp.up.weight"
    values = [dict(m.named_parameters())[name] for m in (one, two, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


# -- whole runs -----------------------------------------------------------------------------------


def test_a_run_grows_and_says_so_everywhere(growing: Growing, home: Path) -> None:
    events: list[dict[str, Any]] = []
    done = train(growing(), run="a", events=events.append)
    start = events[0]
    assert start["layers"] == 1
    assert start["stages"] == [
        {"step": 0, "layers": 1}, {"step": 3, "layers": 2}, {"step": 6, "layers": 4}
    ]  # fmt: skip
    assert start["full_memory_bytes"] > start["memory_bytes"]
    stages = [e for e in events if e["event"] == "stage"]
    assert [(e["stage"], e["stages"], e["step"], e["layers"]) for e in stages] == [
        (1, 3, 0, 1), (2, 3, 3, 2), (3, 3, 6, 4)
    ]  # fmt: skip
    sizes = [e["parameters"] for e in stages]
    block = (sizes[1] - sizes[0]) / 1
    assert sizes[2] - sizes[1] == 2 * block > 0
    assert done["parameters"] == sizes[2]
    assert stages[1]["memory_bytes"] < stages[2]["memory_bytes"]
    for e in stages[1:]:
        assert e["loss_after"] == pytest.approx(e["loss_before"], abs=1e-6)
    header = header_of("a")
    assert [(row.step, row.layers) for row in header.stages] == [(0, 1), (3, 2), (6, 4)]
    assert [row["layers"] for row in header.history] == [2, 4, 4]  # evaluated at 5, 10, 12
    assert header.config["model"]["layers"] == 4
    log = Path("runs/a/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row for row in map(json.loads, log) if row["event"] == "stage"] == stages
    board = EventAccumulator("runs/a").Reload()
    assert [(s.step, s.value) for s in board.Scalars("train/layers")] == [(0, 1), (3, 2), (6, 4)]


def test_copies_change_the_function_and_the_event_says_by_how_much(
    growing: Growing, home: Path
) -> None:
    events: list[dict[str, Any]] = []
    train(growing(**{"model.how": "copy", "training.lr": 0.1}), run="a", events=events.append)
    jumps = [e["loss_after"] - e["loss_before"] for e in events if e.get("stage", 0) > 1]
    assert len(jumps) == 2
    assert all(abs(jump) > 1e-4 for jump in jumps)


def test_identity_growth_in_the_loop_leaves_logits_and_validation_loss_to_the_bit(
    growing: Growing, home: Path
) -> None:
    """Stopped exactly before a growth, and exactly after it, at the first look of the next step."""
    config = growing()
    with pytest.raises(Stopped):
        train(config, run="before", stop_at=6, events=ignore)
    with pytest.raises(Stopped):  # three looks a step: asked at the first of step 7
        train(config, run="after", stop=StopAfter(18), events=ignore)
    headers = [header_of(run) for run in ("before", "after")]
    assert [h.step for h in headers] == [6, 6]
    assert [h.stages[-1].layers for h in headers] == [2, 4]
    shallow, _, _ = load_model("before_last")
    deep, _, _ = load_model("after_last")
    assert (len(shallow.blocks), len(deep.blocks)) == (2, 4)
    tokens = torch.randint(0, shallow.config.vocab_size, (3, 16))
    assert torch.equal(shallow(tokens), deep(tokens))
    assert torch.equal(shallow.blocks[1].mixer.out.weight, deep.blocks[1].mixer.out.weight)
    assert deep.blocks[1].mixer.out.weight.any()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("how", ["identity", "copy"])
def test_resume_is_exact_inside_and_between_stages(
    growing: Growing, home: Path, how: str, optimizer: str
) -> None:
    config = growing(**{"model.how": how, "training.optimizer": optimizer})
    train(config, run="whole", events=ignore)
    # inside the first stage, in an accumulation; at the boundary before growing; right behind it,
    # with nothing of the step made; inside the first step of the last stage
    with pytest.raises(Stopped):
        train(config, run="parts", stop=StopAfter(4), events=ignore)
    with pytest.raises(Stopped):
        resume("parts", stop_at=3, events=ignore)
    assert header_of("parts").stages[-1].layers == 1
    with pytest.raises(Stopped):
        resume("parts", stop=StopAfter(0), events=ignore)
    assert (header_of("parts").step, header_of("parts").stages[-1].layers) == (3, 2)
    with pytest.raises(Stopped):
        resume("parts", stop=StopAfter(3 * 3 + 2), events=ignore)
    header = header_of("parts")
    assert (header.step, header.state["micro"], header.stages[-1].layers) == (6, 2, 4)
    resume("parts", events=ignore)
    same_files("whole", "parts")


def test_the_log_of_a_resumed_run_has_each_stage_once(growing: Growing, home: Path) -> None:
    config = growing()
    with pytest.raises(Stopped):
        train(config, run="a", stop_at=3, events=ignore)
    before = (CHECKPOINTS / "a_last.safetensors").read_bytes()
    with pytest.raises(Stopped):  # grown at step 3, and saved so
        resume("a", stop=StopAfter(0), events=ignore)
    resume("a", stop_at=12, events=ignore)
    log = Path("runs/a/metrics.jsonl")

    def stages() -> list[tuple[int, int]]:
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [(row["step"], row["layers"]) for row in rows if row["event"] == "stage"]

    assert stages() == [(0, 1), (3, 2), (6, 4)]
    # a crash after growing, with nothing saved since: the growth is made, and told, again
    (CHECKPOINTS / "a_last.safetensors").write_bytes(before)
    resume("a", events=ignore)
    assert stages() == [(0, 1), (3, 2), (6, 4)]


def test_every_reader_rebuilds_the_depth_of_the_checkpoint(
    growing: Growing, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(growing(), run="a", stop_at=5, events=ignore)
    path = CHECKPOINTS / "a_last.safetensors"
    for file in (path, CHECKPOINTS / "a_best.safetensors"):
        model, _, header = load_model(file)
        assert model.config.layers == len(model.blocks) == 2
        assert header.config["model"]["layers"] == 4
    shown = inspect_checkpoint(path)
    assert [(row["step"], row["layers"]) for row in shown["stages"]] == [(0, 1), (3, 2)]
    tokens = torch.randint(0, model.config.vocab_size, (1, 16))
    for to in ("weights", "dir"):
        copied, _, header = load_model(export(path, to).path)
        assert len(copied.blocks) == 2
        assert torch.equal(copied(tokens), model(tokens))


def test_a_checkpoint_deeper_than_its_config_is_refused(growing: Growing, home: Path) -> None:
    with pytest.raises(Stopped):
        train(growing(), run="a", stop_at=5, events=ignore)
    path = CHECKPOINTS / "a_last.safetensors"
    with TensorFile(path) as file:
        header, tensors = file.header, file.read_all()
    deep = header.model_copy(update={"stages": [header.stages[0].model_copy(update={"layers": 9})]})
    save(path, deep, tensors)
    with pytest.raises(CheckpointError, match="grown to 9 layers, beyond its 4"):
        load_model(path)
    shallow = header.model_copy(update={"stages": header.stages[:1]})  # one block, tensors of two
    save(path, shallow, tensors)
    with pytest.raises(CheckpointError, match="no place for the tensor"):
        resume("a", events=ignore)


def test_the_best_is_comparable_across_stages(
    growing: Growing, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 4.0])  # found with 1, 2, 4 and 4 blocks
    real = reports.evaluate_sets

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        found, by_set = real(*args, **kwargs)
        return replace(found, loss=next(losses)), by_set

    monkeypatch.setattr(reports, "evaluate_sets", evaluate)
    done = train(growing(**{"training.eval_every": 3}), run="a", events=ignore)
    assert [row["layers"] for row in header_of("a").history] == [1, 2, 4, 4]
    assert done["best_val_loss"] == 1.0
    header = header_of("a", "best")
    assert (header.step, header.losses.val, header.stages[-1].layers) == (6, 1.0, 2)
    assert len(load_model("a_best")[0].blocks) == 2
    assert len(load_model("a_last")[0].blocks) == 4


def test_a_schedule_made_longer_never_shrinks_the_model(growing: Growing, home: Path) -> None:
    config = growing()
    with pytest.raises(Stopped):
        train(config, run="a", stop_at=4, events=ignore)
    events: list[dict[str, Any]] = []
    resume("a", steps=40, events=events.append)  # the second stage would begin at 10 now
    assert [(e["step"], e["layers"]) for e in events if e["event"] == "stage"] == [(20, 4)]
    assert [(row.step, row.layers) for row in header_of("a").stages] == [(0, 1), (3, 2), (20, 4)]


def test_growing_with_compile_compiles_anew(
    growing: Growing, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def fake(model: Any) -> tuple[Any, str | None]:
        asked.append(model.config.layers)
        return model.hidden, None

    monkeypatch.setattr("holo_cli.training.trainer.compile_hidden", fake)
    train(growing(**{"training.compile": True}), run="a", events=ignore)
    assert asked == [1, 2, 4]


def test_a_model_of_one_depth_has_no_stages(small: Callable[..., Resolved], home: Path) -> None:
    events: list[dict[str, Any]] = []
    train(small(**{"training.steps": 2}), run="a", events=events.append)
    assert "stage" not in [e["event"] for e in events]
    assert "stages" not in events[0]
    assert header_of("a").stages == []
    assert "layers" not in header_of("a").history[0]


# -- a model of the project that grows ------------------------------------------------------------


def brain(small: Callable[..., Resolved], **changes: Any) -> Resolved:
    """Three stages, with everything that depends on depth or draws at random switched on."""
    shape = smallest("brain-v1") | {
        "model.layers": 6, "model.growth": [2, 4], "model.growth_at": [0.25, 0.5],
        "training.steps": 8, "model.depth_schedule": True, "model.layer_dropout": 0.2,
        "model.exit_loss": 0.3,
    }  # fmt: skip
    return small("brain-v1", **shape | changes)


def test_brain_v1_grows_without_a_jump(small: Callable[..., Resolved], home: Path) -> None:
    with pytest.raises(Stopped):
        train(brain(small), run="before", stop_at=4, events=ignore)
    with pytest.raises(Stopped):
        train(brain(small), run="after", stop=StopAfter(12), events=ignore)
    shallow, _, _ = load_model("before_last")
    deep, _, _ = load_model("after_last")
    assert (shallow.config.layers, deep.config.layers) == (4, 6)
    tokens = torch.randint(0, shallow.config.vocab_size, (3, 16))
    assert torch.equal(shallow(tokens), deep(tokens))


@pytest.mark.parametrize("how", ["identity", "copy"])
def test_brain_v1_resumes_to_the_bit_at_a_boundary_and_inside_a_stage(
    small: Callable[..., Resolved], home: Path, how: str
) -> None:
    config = brain(small, **{"model.growth_how": how})
    train(config, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config, run="parts", stop_at=2, events=ignore)
    assert header_of("parts").stages[-1].layers == 2
    with pytest.raises(Stopped):
        resume("parts", stop=StopAfter(2 * 3 + 2), events=ignore)
    header = header_of("parts")
    assert (header.step, header.state["micro"], header.stages[-1].layers) == (4, 2, 6)
    resume("parts", events=ignore)
    same_files("whole", "parts")
