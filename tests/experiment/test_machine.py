"""The rate of products on machines that multiply quickly and slowly."""

from __future__ import annotations

import pytest
import torch

from holo_cli.experiment import machine


class Clock:
    """Time that passes in products only: a square of n rows takes `slowness` n**3 seconds."""

    def __init__(self, slowness: float) -> None:
        self.slowness, self.now, self.sizes = slowness, 0.0, [0]

    def perf_counter(self) -> float:
        return self.now

    def square(self, rows: int, dtype: object) -> Square:
        return Square(self, rows)


class Square:
    def __init__(self, clock: Clock, rows: int) -> None:
        self.clock, self.rows = clock, rows

    def __matmul__(self, other: Square) -> None:
        self.clock.now += self.clock.slowness * self.rows**3
        self.clock.sizes.append(self.rows)


@pytest.mark.parametrize(
    ("slowness", "largest"), [(1e-12, 1024), (2e-10, 512), (1e-9, 256), (1e-6, 128)]
)
def test_products_are_as_large_as_the_time_allows(
    monkeypatch: pytest.MonkeyPatch, slowness: float, largest: int
) -> None:
    clock = Clock(slowness)
    monkeypatch.setattr(machine, "time", clock)
    monkeypatch.setattr(machine, "_square", clock.square)
    rate = machine.product_rate(torch.float32, seconds=0.5)
    assert rate == pytest.approx(2 / slowness / 1e9)
    assert max(clock.sizes) == clock.sizes[-1] == largest
    assert clock.now <= max(0.7, slowness * 128**3)
