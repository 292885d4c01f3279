"""A small prepared set and a small resolved config, in a folder of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from holo_cli import registry
from holo_cli.checkpoint import read_header
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.data.prepare.prepare import prepare

TEXT = "the old fox ran over a quiet hill and saw the sea before night fell"


def write_text(path: Path, documents: int = 40, seed: int = 0) -> Path:
    rng = random.Random(seed)
    texts = (" ".join(rng.choices(TEXT.split(), k=30)) + ".\n" for _ in range(documents))
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters, some 6,000 tokens; every test reads the same set."""
    folder = tmp_path_factory.mktemp("prepared")
    source = write_text(folder / "words.txt")
    prepare(["words"], source=str(source), out=folder / "words", tokenizer="char")
    return folder / "words"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: checkpoints/ and runs/ appear there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = {
    "model.layers": 1,
    "model.heads": 2,
    "model.width": 16,
    "model.context": 16,
    "model.dropout": 0.1,
    "training.steps": 12,
    "training.batch_size": 4,
    "training.grad_accum": 3,
    "training.eval_every": 5,
    "training.log_every": 4,
    "training.warmup": 2,
    "training.dtype": "float32",
    "training.sample_tokens": 0,
}


def smallest(model: str) -> dict[str, Any]:
    """What a model needs to be as small as SMALL, from its own list of configurations."""
    cases = registry.part(model, "reference").CASES
    return {f"model.{key}": value for key, value in next(iter(cases.values())).items()}


@pytest.fixture
def small(prepared: Path) -> Callable[..., Resolved]:
    """small(**{"training.lr": 0.1}) -> a config of a second's training."""

    def make(model: str = "vanilla", **changes: Any) -> Resolved:
        flags = SMALL | {"data.path": str(prepared), "training.device": "cpu"} | changes
        return resolve(model, flags=flags, env={})

    return make


def same_files(a: str, b: str) -> None:
    """Two runs' last checkpoints agree in every bit of every tensor, and in their counters."""
    first = load_file(Path("checkpoints") / f"{a}_last.safetensors")
    second = load_file(Path("checkpoints") / f"{b}_last.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    states = [read_header(Path("checkpoints") / f"{run}_last.safetensors").state for run in (a, b)]
    for state in states:
        for timing in ("train_seconds", "eval_seconds"):
            state.pop(timing)
        for row in (*state["history"], *state["stages"]):
            row.pop("train_seconds")
    assert states[0] == states[1]
