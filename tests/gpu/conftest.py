"""Tests for an accelerator: `pytest -m gpu`. Elsewhere they skip with a reason.

`HOLO_TEST_DEVICE=cpu` runs them on the CPU, which shows that the tests themselves work.
"""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def device() -> str:
    """The device that is tested."""
    import torch

    asked = os.environ.get("HOLO_TEST_DEVICE", "")
    if asked:
        return asked
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    pytest.skip("no CUDA and no MPS device here")
