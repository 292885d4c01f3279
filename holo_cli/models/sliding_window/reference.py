"""Attention over a window and sinks, one position and one head at a time (`models/oracle.py`)."""

from __future__ import annotations

from typing import Any

from holo_cli.models.oracle import Inputs, Vectors, attend, joined
from holo_cli.models.sliding_window.attention import WindowAttention
from holo_cli.models.vanilla.reference import heads

# The window is shorter than every text of the suite that has to look back, and the sinks let the
# first token reach the last position.
CASES: dict[str, dict[str, Any]] = {"window": {"window": 12, "sinks": 2, "rope_fraction": 0.5}}


def mix(mixer: WindowAttention, inputs: Inputs) -> Vectors:
    def seen(t: int) -> list[int]:
        return [s for s in range(t + 1) if s > t - mixer.window or s < mixer.sinks]

    found = [attend(q, k, v, seen) for q, k, v in heads(mixer, inputs)]
    return [mixer.out.weight @ y for y in joined(found)]
