"""The stored activations of one row: complete, true, and looked up instead of measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from holo_cli import registry
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.training import row_memory
from holo_cli.training.memory_estimate import estimate
from holo_cli.training.precision import pick_dtype
from holo_cli.training.row_memory import row_key, stored_figures, train_memory_bytes
from tests.training.conftest import SMALL, smallest

FORMATS = (torch.float32, torch.bfloat16)
REPAIR = "run: python -m benchmarks.row_memory --models"


def resolved(model: str, preset: str, **keys: object) -> Resolved:
    flags = {"model.vocab_size": 300, "training.device": "cpu"}
    return resolve(model, preset, flags=flags | keys, env={})


def never(*args: object, **named: object) -> NoReturn:
    raise AssertionError("a row was run")


@pytest.mark.parametrize("model", registry.built_in())
def test_every_preset_is_in_the_table(model: str) -> None:
    for preset in registry.preset_names(model):
        config = resolved(model, preset)
        for dtype in FORMATS:
            key = row_key(model, config.model, dtype, config.training.grad_checkpoint)
            assert key in stored_figures(), f"{preset}: {REPAIR} {model}"


@pytest.mark.parametrize("model", registry.built_in())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_table_is_what_measuring_gives(model: str, dtype: str) -> None:
    config = resolved(model, "tiny", **{"training.dtype": dtype})
    measured = estimate(config, 300)["total_bytes"]
    assert train_memory_bytes(config, 300) == pytest.approx(measured, rel=0.01), f"{REPAIR} {model}"


def test_a_preset_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_memory, "activation_bytes", never)
    assert train_memory_bytes(resolved("vanilla", "gpt2-124m"), 50_257) > 3e9


def test_other_settings_are_measured_once_and_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("holo_cli.hardware.machine_file", lambda: tmp_path / "machine.json")
    config = resolved("vanilla", "tiny", **{"model.context": 24})
    first = train_memory_bytes(config, 300)
    assert first == estimate(config, 300)["total_bytes"]
    with monkeypatch.context() as m:
        m.setattr(row_memory, "activation_bytes", never)
        assert train_memory_bytes(config, 300) == first
        with pytest.raises(AssertionError, match="a row was run"):
            train_memory_bytes(config, 300, measure=True)
        m.setattr(row_memory, "SHARED", ("layers",))  # as if the code had changed
        with pytest.raises(AssertionError, match="a row was run"):
            train_memory_bytes(config, 300)


def test_the_key_holds_everything_but_the_vocabulary() -> None:
    config, dtype = resolved("vanilla", "tiny").model, pick_dtype("float32", torch.device("cpu"))
    key = row_key("vanilla", config, dtype, False)
    assert key == row_key("vanilla", config.model_copy(update={"vocab_size": 9}), dtype, False)
    others = {
        row_key("ngt", config, dtype, False),
        row_key("vanilla", config.model_copy(update={"width": 64}), dtype, False),
        row_key("vanilla", config, torch.bfloat16, False),
        row_key("vanilla", config, dtype, True),
    }
    assert len(others | {key}) == 5


def test_nothing_is_imported_that_few_calls_need(prepared: Path, home: Path) -> None:
    """`holo generate` without --memory, --exit-threshold and --num-samples; `holo models`; a run
    of a model that grows. torch's compiler alone takes two seconds of a process's start."""
    late = (
        "holo_cli.data.dataset", "holo_cli.inference.generation.early_exit", "psutil",
        "holo_cli.inference.chat.conversation_memory", "torch._dynamo", "sympy",
    )  # fmt: skip
    flags = SMALL | smallest("brain-v1") | {
        "data.path": str(prepared), "training.device": "cpu", "training.steps": 4,
        "model.layers": 4, "model.growth": [2], "model.growth_at": [0.5],
    }  # fmt: skip
    program = f"""
import sys
import holo_cli.cli.generate, holo_cli.cli.compute
import holo_cli.inference.generation.loaded_model, holo_cli.checkpoint.rebuild
import holo_cli.inference.generation.exit_protocol
print("generate:", *(name for name in {late} if name in sys.modules))
from holo_cli.cli.models import costs
from holo_cli.check.cases import SHAPE, cases_of
from holo_cli.registry import config_class
costs('vanilla', 300, None)
for name in ("brain-v1", "brain-v2", "holographic", "ngt"):
    config = config_class(name)(**SHAPE | cases_of(name)[0].overrides)
    holo_cli.checkpoint.rebuild.shapes_only(name, config)
print("models:", *(name for name in {late[-2:]} if name in sys.modules))
from holo_cli.config.resolve import resolve
from holo_cli.training.run import train
train(resolve("brain-v1", flags={flags}, env={{}}), run="a", events=lambda event: None)
print("train:", *(name for name in {late[-2:]} if name in sys.modules))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["generate:", "models:", "train:"]
