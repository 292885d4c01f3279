"""A model in a file in the processes of the benches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import holo_cli as holo
from holo_cli import plugins, registry
from tests.plugins.plugin_lab import MIXER, run, write


def test_a_process_of_a_bench_finds_the_file(stories: str) -> None:
    write("ideas/mixer.py")
    registry.use("ideas/mixer.py:Mean")
    code = "from holo_cli import registry; print(registry.config_class('mixer.py:Mean').mechanism)"
    root = str(Path(holo.__file__).parents[1])
    environment = {**os.environ, **plugins.environment(), "PYTHONPATH": root}
    place = Path("elsewhere")
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "The mean of everything so far.", done.stderr


def test_bench_compares_a_file_with_a_model(
    stories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("ideas/mixer.py")
    code, said = run(
        capsys, "bench", "compare", "--models", "ideas/mixer.py:Mean", "--preset", "tiny",
        "--data", stories, "--match", "none", "--seeds", "1", "--rates", "1", "--steps", "2",
        "--batch-size", "2", "--set", "model.layers=1", "--set", "model.width=16",
        "--set", "model.heads=2", "--context", "16", "--set", "training.device=cpu",
    )  # fmt: skip
    assert code == 0, said
    assert "mixer.py:Mean" in said
    assert "failed" not in said


def test_bench_speed_measures_a_file_at_the_common_shape(
    stories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        "ideas/mixer.py", MIXER.replace("heads: int = 2", "heads: int = 3").replace("= 16", "= 18")
    )
    code, said = run(
        capsys, "bench", "speed", "--models", "ideas/mixer.py:Mean", "--context", "16",
        "--vocab-size", "16", "--batch-size", "1", "--repeats", "1", "--seconds", "0.01",
        "--device", "cpu", "--dtype", "float32",
    )  # fmt: skip
    assert code == 0, said
    assert "failed" not in said
