"""The bench of early exit: what it measures is what the model does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from holo_cli.bench.early_exit import decoded, measure
from holo_cli.inference.exits import NEVER
from holo_cli.inference.loaded import Loaded
from holo_cli.registry import build_model, config_class

VOCAB, LAYERS = 29, 3


def some_loaded() -> Loaded:
    shape = {"vocab_size": VOCAB, "layers": LAYERS, "heads": 2, "width": 16, "context": 32}
    torch.manual_seed(0)
    model = build_model("brain-v1", config_class("brain-v1")(**shape))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return Loaded(model.eval(), cast(Any, None), cast(Any, SimpleNamespace(run="mine")))


def some_data() -> Any:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 200).astype("uint16")
    return SimpleNamespace(split=lambda _: [tokens], tokenizer=SimpleNamespace(end=0))


def test_depth_follows_the_threshold() -> None:
    loaded = some_loaded()
    tokens = torch.randint(0, VOCAB, (1, 12))
    assert decoded(loaded, tokens, NEVER)[2] == LAYERS
    assert decoded(loaded, tokens, 1e-6)[2] == 1


def test_a_row_for_each_tolerance() -> None:
    loaded = some_loaded()
    tight, wide = measure(loaded, some_data(), [0.0, 100.0], tokens=16, repeats=1)
    assert tight["tokens"] == wide["tokens"] == 16
    for row, tolerance in ((tight, 0.0), (wide, 100.0)):
        assert row["loss"] <= row["full_loss"] + tolerance + 1e-4
        assert row["layers"] == LAYERS
        assert row["times_faster"] > 0
    # with any loss allowed everything leaves at once; decoding and the calibration agree
    assert wide["mean_depth"] == wide["mean_depth_decoding"] == pytest.approx(1, abs=1e-3)
    assert tight["mean_depth"] > 1
