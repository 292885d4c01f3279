"""The hash table on disk agrees with a dict."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from holo_cli.data.cleaning import index as module
from holo_cli.data.cleaning.index import Index


@pytest.mark.parametrize("large", [False, True])
def test_like_a_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr(module, "_LARGE", 1)
    rng = random.Random(5)
    index, known = Index(tmp_path / "i", 1024), {}
    for batch in range(12):
        # few different low parts, so that keys crowd into the same places
        keys = [rng.randrange(1 << 24) << 40 | rng.randrange(40) for _ in range(50)]
        keys += rng.sample(keys, 10)
        numbers = list(range(batch * 100, batch * 100 + 60))
        assert index.has_room(60) == (index.used + 60 <= 0.6 * 1024)
        if not index.has_room(60):
            break
        asked = np.array(keys, dtype=np.uint64)
        assert index.find(asked).tolist() == [known.get(key, -1) for key in keys]
        index.add(asked, np.array(numbers, dtype=np.int64))
        for key, number in zip(keys, numbers, strict=True):
            known.setdefault(key, number)
        assert index.find(asked).tolist() == [known[key] for key in keys]
    assert batch > 5
    assert index.used == len(known)
    assert index.find(np.array(list(known), dtype=np.uint64)).tolist() == list(known.values())
    index.close()


def test_begins_empty_whatever_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "i"
    path.write_bytes(b"\xff" * 100_000)
    index = Index(path, 64)
    assert index.find(np.array([0, 1, 2**64 - 1], dtype=np.uint64)).tolist() == [-1, -1, -1]
    index.add(np.array([0], dtype=np.uint64), np.array([0]))
    assert index.find(np.array([0, 64], dtype=np.uint64)).tolist() == [0, 0]  # half a key is kept
    assert path.stat().st_size == 64 * 8
    index.close()
