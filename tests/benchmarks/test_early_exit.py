"""The bench of early exit: what it measures is what the model does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks import early_exit
from benchmarks.early_exit import decoded, measure, split_in_half
from holo_cli.errors import DataError
from holo_cli.inference.generation.early_exit import NEVER
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.registry import build_model, config_class

VOCAB, LAYERS = 29, 3


def some_loaded() -> LoadedModel:
    shape = {"vocab_size": VOCAB, "layers": LAYERS, "heads": 2, "width": 16, "context": 32}
    torch.manual_seed(0)
    model = build_model("brain-v1", config_class("brain-v1")(**shape))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return LoadedModel(model.eval(), cast(Any, None), cast(Any, SimpleNamespace(run="mine")))


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
        assert row["calibration_loss"] <= row["calibration_full_loss"] + tolerance + 1e-4
        assert row["loss_tokens"] == 100
        assert row["layers"] == LAYERS
        assert row["times_faster"] > 0
    # with any loss allowed everything leaves at once; decoding and the calibration agree
    assert wide["mean_depth"] == wide["mean_depth_decoding"] == pytest.approx(1, abs=1e-3)
    assert tight["mean_depth"] > 1


def test_the_loss_is_on_text_that_the_threshold_was_not_chosen_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the second half is, the threshold stays; whatever the first, the figures do."""
    loaded, data = some_loaded(), some_data()
    tokens = data.split("val")[0]
    other = tokens[::-1].copy()

    def found(first: Any, second: Any) -> dict[str, Any]:
        text = np.concatenate([first[:100], second[100:]])
        changed = SimpleNamespace(split=lambda _: [text[:70], text[70:]], tokenizer=data.tokenizer)
        return next(measure(loaded, cast(Any, changed), [0.02], tokens=16, repeats=1))

    row, same_first, same_second = (
        found(*texts) for texts in ((tokens, tokens), (tokens, other), (other, tokens))
    )
    for key in ("threshold", "calibration_loss", "calibration_full_loss"):
        assert row[key] == same_first[key]
    assert row["full_loss"] == same_second["full_loss"]
    assert row["full_loss"] != same_first["full_loss"]
    assert row["calibration_full_loss"] != same_second["calibration_full_loss"]
    read: list[list[int]] = []
    monkeypatch.setattr(
        early_exit, "decoded", lambda _, text, __: read.append(text[0].tolist()) or (1.0, 1.0, 1.0)
    )
    found(tokens, tokens)
    assert read[-1] == tokens[100:116].tolist()


def test_halves_of_several_shards() -> None:
    shards = [np.arange(3), np.arange(3, 4), np.arange(4, 9)]
    first, second = split_in_half(shards)
    assert [s.tolist() for s in first] == [[0, 1, 2], [3]]
    assert [s.tolist() for s in second] == [[4, 5, 6, 7, 8]]
    first, second = split_in_half([np.arange(5)])
    assert ([s.tolist() for s in first], [s.tolist() for s in second]) == ([[0, 1]], [[2, 3, 4]])
    with pytest.raises(DataError, match="too short"):
        split_in_half([np.arange(1)])
