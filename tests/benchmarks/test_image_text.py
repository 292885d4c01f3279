"""Images as text: a pattern repeats its tile in both directions, and a set of them is a file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks import image_text
from benchmarks.image_text import COLOURS, SIDE, TILES, main, pattern


def agreement(image: str, down: int, right: int) -> float:
    """The share of pixels that equal the one `down` rows above and `right` to the left."""
    pairs = [
        (image[row * SIDE + column], image[(row - down) * SIDE + column - right])
        for row in range(down, SIDE)
        for column in range(right, SIDE)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def test_a_pattern_repeats_downwards_and_to_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_text, "NOISE", 0.0)
    for seed in range(20):
        image = pattern(random.Random(seed))
        assert len(image) == SIDE * SIDE
        assert set(image) <= set(COLOURS)
        assert any(agreement(image, height, 0) == 1.0 for height in TILES)
        assert any(agreement(image, 0, width) == 1.0 for width in TILES)


def test_noise_breaks_a_few_pixels() -> None:
    shares = []
    for seed in range(20):
        image = pattern(random.Random(seed))
        shares.append(max(agreement(image, height, 0) for height in TILES))
    assert 0.9 < sum(shares) / len(shares) < 1.0


def test_a_file_has_an_image_on_each_line(tmp_path: Path) -> None:
    out = tmp_path / "images" / "patterns.jsonl"
    main(["patterns", "--out", str(out)])
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == image_text.IMAGES
    assert all(len(json.loads(line)["text"]) == SIDE * SIDE for line in lines)
    again = tmp_path / "again.jsonl"
    main(["patterns", "--out", str(again)])
    assert again.read_bytes() == out.read_bytes()
