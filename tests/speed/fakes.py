"""Processes that only pretend: their answers follow formulas, so findings can be held to them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from holo_cli.config.resolve import Resolved
from holo_cli.speed import decode, scaling, speed
from holo_cli.speed.measurements import Spread
from holo_cli.speed.model_process import ModelProcessError

Seconds = Callable[[str, int], float]  # of a token, by name and context or position


def microseconds(name: str, at: int) -> float:
    """vanilla: as T; holographic: flat, as vanilla at 512."""
    return {"vanilla": at, "holographic": 512}.get(name, 256) * 1e-6


class Pretence:
    """What the fakes answer, and what they were asked. `broken` fail when first measured, or at
    that length."""

    def __init__(self, seconds: Seconds) -> None:
        self.seconds = seconds
        self.broken: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []
        self.alive = 0

    def process(self, name: str, benchmark: str, resolved: Resolved) -> FakeProcess:
        return FakeProcess(self, name, benchmark, resolved)


class FakeProcess:
    def __init__(self, play: Pretence, name: str, benchmark: str, resolved: Resolved) -> None:
        self.play, self.name, self.benchmark = play, name, benchmark
        self.context = resolved.model.context
        self.rows = resolved.training.batch_size
        play.alive += 1

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.play.alive -= 1

    def close(self) -> None:
        """The block's end counts."""

    def ask(self, call: str, **arguments: Any) -> dict[str, Any]:
        self.play.asked.append((self.name, call))
        if call == "warm":
            return {
                "build_seconds": 0.5, "first_step_seconds": 0.25, "warm_seconds": 0.75,
                "dtype": "float32", "device": "cpu", "threads": 1, "parameters": 1000,
                "active_parameters": 900, "flops_per_token": 6000.0, "weight_bytes": 4000,
            }  # fmt: skip
        if call == "read":
            position = arguments["position"]
            state = 8 * position if self.name == "vanilla" else 64
            return {"seconds": 0.5, "cpu_seconds": 0.5, "tokens": position, "state_bytes": state}
        broken = self.play.broken.get(self.name)
        if broken is not None and self.context >= broken:
            raise ModelProcessError("it broke")
        at = arguments.get("position", self.context)
        tokens = arguments.get("tokens", self.rows * self.context)
        seconds = self.play.seconds(self.name, at) * tokens
        return {
            "seconds": seconds, "cpu_seconds": seconds / 2, "steps": 1, "tokens": tokens,
            "optimizer_seconds": seconds / 10, "peak_bytes": 5_000_000 + 100 * tokens,
            "before_bytes": 5_000_000,
        }  # fmt: skip


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: Seconds) -> Pretence:
    """Replace the processes and the measurements of the machine by fakes."""
    play = Pretence(seconds)
    for module in (speed, scaling, decode):
        monkeypatch.setattr(module, "ModelProcess", play.process)
        monkeypatch.setattr(module, "describe_machine", lambda: {"cpu": "pretended"})
    monkeypatch.setattr(speed, "product_rate", lambda dtype, seconds: 2.0)
    monkeypatch.setattr(decode, "read_rate", lambda nbytes, seconds=0.0: 8e6)
    monkeypatch.setattr(decode, "copy_rate", lambda nbytes, seconds=0.0: 4e6)
    return play


def exactly(value: float, count: int) -> dict[str, float]:
    """A spread of figures that are all the same."""
    return Spread(value, value, value, count).to_dict()
