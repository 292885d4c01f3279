"""Processes that measure: what they answer, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holo_cli.config.resolve import Resolved
from holo_cli.speed.measurements import resolve_entries
from holo_cli.speed.model_process import ModelProcess, ModelProcessError, run_rounds, serve
from holo_cli.speed.step_benchmark import copy_rate, peak_bytes, read_rate

SMALL = ["model.layers=1", "model.width=16", "model.heads=2", "model.context=32"]


def small(variant: str = "", **changes: Any) -> Resolved:
    """A config of milliseconds."""
    subjects = resolve_entries(
        [] if variant else ["vanilla"], [f"v=vanilla,{variant}"] if variant else [], sets=SMALL,
        batch_size=2, vocab_size=64, dtype="float32",
    )  # fmt: skip
    return subjects[0].resolved.replace(changes) if changes else subjects[0].resolved


def served(benchmark: str, resolved: Resolved, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    job = {"benchmark": benchmark, "resolved": resolved.to_dict()}
    serve(job, map(json.dumps, calls), answers.append)
    return answers


def test_training_as_it_is_measured() -> None:
    warm, one, many = served(
        "training", small(), {"call": "warm", "steps": 1}, {"call": "measure"},
        {"call": "measure", "seconds": 0.05},
    )  # fmt: skip
    assert (warm["dtype"], warm["device"]) == ("float32", "cpu")
    assert warm["build_seconds"] > 0
    assert (one["steps"], one["tokens"]) == (1, 2 * 32)
    assert many["tokens"] == many["steps"] * 2 * 32
    assert 0 < many["optimizer_seconds"] < many["seconds"]
    assert many["cpu_seconds"] > 0


def test_steps_are_made_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()  # a clock of its own: on a busy machine one step may take any time
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 100, process_time=time.process_time)
    monkeypatch.setattr("holo_cli.speed.step_benchmark.time", clock)
    one, many = served(
        "training", small(), {"call": "measure"}, {"call": "measure", "seconds": 0.05}
    )
    assert one["steps"] == 1 < many["steps"] <= 5  # five ticks, and a step looks once or more
    assert many["tokens"] == many["steps"] * one["tokens"]


def test_decoding_as_it_is_measured() -> None:
    warm, first, again, written = served(
        "decoding", small(), {"call": "warm"}, {"call": "read", "position": 8},
        {"call": "read", "position": 20}, {"call": "measure", "position": 20, "tokens": 5},
    )  # fmt: skip
    assert warm["weight_bytes"] == 4 * warm["active_parameters"]
    assert (first["tokens"], again["tokens"]) == (8, 12)  # the second goes on from the first
    assert 0 < first["state_bytes"] < again["state_bytes"]
    assert written["tokens"] == 5
    assert written["median_token_seconds"] <= written["seconds"]


def test_what_goes_wrong_is_the_last_answer() -> None:
    (answer,) = served("training", small(), {"call": "fly"})
    assert "fly" in answer["error"]
    (*_, answer) = served("training", small(), {"call": "measure", "seconds": "soon"})
    assert re.search(r"TypeError: .+ \(step_benchmark\.py, line \d+\)$", answer["error"])
    resolved = small("training.lr=1e30,training.warmup=0")
    answers = served(
        "training", resolved, {"call": "warm", "steps": 1}, {"call": "measure", "seconds": 1.0}
    )
    assert "diverged" in answers[-1]["error"]
    assert len(answers) == 2


def test_a_process_answers_and_is_given_up_when_it_takes_too_long() -> None:
    held = torch.ones(60_000_000)  # 240 MB that the child must not be charged with
    own = peak_bytes(torch.device("cpu"))
    with ModelProcess("v", "decoding", small()) as child:
        assert child.ask("warm")["parameters"] > 0
        child.ask("read", position=8)
        peak = child.ask("measure", position=8, tokens=3)["peak_bytes"]
        if sys.platform == "linux":
            assert own is not None
            assert peak < own - held.nbytes // 2
        child.timeout = 0.2
        with pytest.raises(ModelProcessError, match=r"no answer within 0 seconds"):
            child.ask("warm", tokens=10**6)
        with pytest.raises(ModelProcessError):
            child.ask("warm")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_process_that_is_killed_says_so() -> None:
    with ModelProcess("v", "training", small()) as child:
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(ModelProcessError, match=r"SIGKILL\); out of memory\?"):
            child.ask("warm")


ORPHAN = """
from holo_cli.speed.model_process import ModelProcess
from holo_cli.speed.measurements import resolve_entries
subject = resolve_entries(["vanilla"], sets={sets}, batch_size=2, vocab_size=64, dtype="float32")[0]
child = ModelProcess("v", "training", subject.resolved)
child.ask("warm", steps=1)
print(child.pid, flush=True)
child.ask("measure", seconds=600.0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the number of a dead parent")
def test_a_process_ends_with_a_parent_that_was_killed() -> None:
    command = [sys.executable, "-c", ORPHAN.format(sets=SMALL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(300):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if _is_zombie(child):  # ended, and nobody here to collect it
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it went on measuring")


def _is_zombie(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


class Turn:
    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def close(self) -> None:
        self.closed = True


def test_turns_rotate_and_failed_ones_are_left_out() -> None:
    turns, order, failures = [Turn("a"), Turn("b"), Turn("c")], [], []

    def work(child: Any, number: int) -> None:
        order.append(child.name)
        if (child.name, number) == ("b", 1):
            raise ModelProcessError("why")

    run_rounds(
        turns,  # type: ignore[arg-type]
        3, work, lambda name, why: failures.append((name, why)),
        lambda number: order.append(f"- {number}"),
    )  # fmt: skip
    assert order == ["- 0", "a", "b", "c", "- 1", "b", "c", "a", "- 2", "c", "a"]
    assert failures == [("b", "why")]
    assert [turn.closed for turn in turns] == [False, True, False]


def test_rates_of_memory_are_rates() -> None:
    for rate in (read_rate, copy_rate):
        assert 1e7 < rate(1 << 16, seconds=0.05) < 1e13  # the best of many, not one that waited
