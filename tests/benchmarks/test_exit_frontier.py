"""The bench of the frontier: what it chooses keeps its word, and its picture shows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from benchmarks.exit_frontier import TOLERANCES, measure
from benchmarks.exit_plot import plot
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.registry import build_model, config_class

VOCAB, LAYERS = 29, 4


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    shape = {"vocab_size": VOCAB, "layers": LAYERS, "heads": 2, "width": 16, "context": 16}
    small = {"columns": 8, "mlp_ratio": 4.0, "activity": 0.25, "exit_every": 2}
    torch.manual_seed(0)
    model = build_model("brain-v1", config_class("brain-v1")(**shape, **small))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 1600).astype("uint16")
    data: Any = SimpleNamespace(split=lambda _: [tokens], tokenizer=SimpleNamespace(end=0))
    loaded = LoadedModel(model, cast(Any, None), cast(Any, SimpleNamespace(run="<mine>")))
    return measure(loaded, data, tokens=640, fit=20, repeats=1)


def test_more_loss_buys_less_depth(row: dict[str, Any]) -> None:
    assert set(row["frontiers"]) == {f"{k}, every 2" for k in ("top1", "entropy", "learned")}
    for found in row["frontiers"].values():
        depths = [found["at"][str(t)]["depth"] for t in TOLERANCES]
        assert depths == sorted(depths, reverse=True)
        assert all(2 <= depth <= LAYERS for depth in depths)
        assert found["at"]["0.05"]["more"] < 0.15


def test_guesses_do_not_change_the_text(row: dict[str, Any]) -> None:
    guessing = [form for form in row["speed"] if form["form"].startswith("guess")]
    assert len(guessing) == 4
    for form in [*guessing, row["speed"][0]]:
        assert form["same_text"] == form["texts"] == 1


def test_the_picture_is_one_and_says_what_was_measured(row: dict[str, Any]) -> None:
    drawn = plot([row | {"data": "mine"}])
    root = ElementTree.fromstring(drawn)
    words = [e.text or "" for e in root.iter() if e.tag.endswith("text")]
    assert "<mine>" in words
    share = row["frontiers"]["learned, every 2"]["at"]["0.01"]["share"]
    assert f"learned, every 2: {share:.0%} at +0.01" in words
