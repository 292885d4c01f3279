"""Blocks so small that short texts have many."""

from __future__ import annotations

import pytest

from holo_cli.models.ngt import gravity_attention as gravity_module
from holo_cli.models.ngt import tiles


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks at small lengths, none of which divides 21."""
    monkeypatch.setattr(gravity_module, "BLOCK", 5)
    monkeypatch.setattr(tiles, "QUERIES", 4)
    monkeypatch.setattr(tiles, "KEYS", 7)
