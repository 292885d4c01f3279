"""Resident memory as a run reports it: its own, whoever started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from holo_cli.training.memory_estimate import peak_rss_bytes, rss_bytes

HELD = 500_000_000  # more than a child with torch has of its own
CHILD = "from holo_cli.training.memory_estimate import peak_rss_bytes; print(peak_rss_bytes())"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_what_was_held_stays_in_the_peak() -> None:
    held = np.ones(HELD, dtype=np.uint8)
    del held
    peak = peak_rss_bytes()
    assert peak is not None
    assert peak > HELD


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child does not inherit it")
def test_a_child_is_not_charged_with_its_parent() -> None:
    held = np.ones(HELD, dtype=np.uint8)
    child = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=120
    )
    now = rss_bytes()
    assert now is not None
    assert now > held.nbytes
    assert 10_000_000 < int(child.stdout) < held.nbytes
