"""Figures of a machine are measured once and remembered."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from holo_cli import hardware
from holo_cli.training import precision


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "holo" / "machine.json"
    monkeypatch.setattr(hardware, "machine_file", lambda: path)
    return path


def test_what_is_remembered_is_found_again(memory: Path) -> None:
    assert hardware.remembered("a") is None
    hardware.remember("a", 1.5)
    hardware.remember("b", [2])
    assert (hardware.remembered("a"), hardware.remembered("b")) == (1.5, [2])


@pytest.mark.parametrize("content", ["", "[1]", "{", "\ud83d".encode("utf-16", "surrogatepass")])
def test_a_damaged_memory_is_measured_anew(memory: Path, content: str | bytes) -> None:
    memory.parent.mkdir()
    memory.write_bytes(content.encode() if isinstance(content, str) else content)
    assert hardware.remembered("a") is None
    hardware.remember("a", 1)
    assert json.loads(memory.read_text(encoding="utf-8")) == {"a": 1}


def test_a_memory_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(hardware, "machine_file", lambda: tmp_path / "file" / "machine.json")
    hardware.remember("a", 1)
    assert hardware.remembered("a") is None


def test_the_number_format_is_probed_once_per_machine(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that flips on a busy machine made runs of one comparison compute differently."""
    measured = iter([0.3, 2.0])
    monkeypatch.setattr(precision, "bfloat16_over_float32", lambda: next(measured))
    for _ in range(2):
        precision.cpu_is_fast_at_bfloat16.cache_clear()  # as in a new process
        assert precision.pick_dtype("auto", torch.device("cpu")) == torch.bfloat16
    (name,) = json.loads(memory.read_text(encoding="utf-8"))
    assert hardware.cpu_fingerprint() in name
    assert torch.__version__ in name
    hardware.remember(name, 2.0)
    precision.cpu_is_fast_at_bfloat16.cache_clear()
    assert precision.pick_dtype("auto", torch.device("cpu")) == torch.float32
    precision.cpu_is_fast_at_bfloat16.cache_clear()


@pytest.mark.parametrize(("ratio", "rounds"), [(0.5, 25), (3.0, 25), (10.0, 5)])
def test_few_rounds_are_enough_where_bfloat16_is_emulated(
    monkeypatch: pytest.MonkeyPatch, ratio: float, rounds: int
) -> None:
    """A clock by which a product takes 1 in float32 and `ratio` in bfloat16."""
    asked: list[float] = [0.0]

    def clock() -> float:
        asked.append(asked[-1] + (0.0, 1.0, 0.0, ratio)[(len(asked) - 1) % 4])
        return asked[-1]

    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=clock))
    assert precision.bfloat16_over_float32(size=8) == pytest.approx(ratio)
    assert len(asked) - 1 == 4 * rounds


def test_all_other_tests_compute_in_float32_on_every_machine() -> None:
    """By a figure that tests/conftest.py stored, not by one that was measured here."""
    name = f"bfloat16_over_float32/{hardware.cpu_fingerprint()}/{torch.__version__}"
    assert hardware.remembered(name) == 9.0
    assert precision.pick_dtype("auto", torch.device("cpu")) == torch.float32
