"""Thresholds for leaving early: which models take them, what `auto` finds, and what is reported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from holo_cli.checkpoint.header import DataInfo
from holo_cli.data.windows import TokenStream
from holo_cli.errors import DataError, UsageError
from holo_cli.inference.generation.early_exit import (
    NEVER,
    calibrate_threshold,
    choose_threshold,
    set_threshold,
)
from holo_cli.inference.generation.exit_protocol import mean_depth
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.models.base import LanguageModel
from holo_cli.registry import build_model, config_class

VOCAB = 29


def make_model(name: str = "brain-v1", **given: Any) -> LanguageModel:
    shape = {"vocab_size": VOCAB, "layers": 3, "heads": 2, "width": 16, "context": 16}
    torch.manual_seed(0)
    model = build_model(name, config_class(name)(**shape, **given))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model.train()


def some_data() -> Any:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 200).astype("uint16")
    return SimpleNamespace(stream=lambda _: TokenStream([tokens]), tokenizer=SimpleNamespace(end=0))


def some_loaded(model: LanguageModel, path: str = "") -> LoadedModel:
    header = SimpleNamespace(data=DataInfo(path=path))
    return LoadedModel(model, cast(Any, None), cast(Any, header))


def test_only_models_that_can_take_a_threshold() -> None:
    with pytest.raises(UsageError, match="does not support early exit") as error:
        set_threshold(make_model("vanilla"), 0.9)
    assert "brain-v1" in str(error.value.next_step)
    model = make_model(columns=10, activity=0.2)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above 0"):
            set_threshold(model, wrong)
    set_threshold(model, 0.7)
    assert model.exit_threshold == 0.7


def test_a_threshold_is_a_number_or_auto(tmp_path: Any) -> None:
    model = make_model(columns=10, activity=0.2)
    assert choose_threshold(some_loaded(model), "0.25") is None
    assert model.exit_threshold == 0.25
    with pytest.raises(UsageError, match="number or 'auto', not 'early'"):
        choose_threshold(some_loaded(model), "early")
    with pytest.raises(DataError, match="needs the validation split of this checkpoint"):
        choose_threshold(some_loaded(model, str(tmp_path / "gone")), "auto")


def test_calibration_measures_what_it_promises() -> None:
    model = make_model(columns=10, activity=0.2)
    free = calibrate_threshold(model, some_data(), tolerance=100.0)
    assert free.threshold < 0.01
    assert free.mean_depth == 1.0
    strict = calibrate_threshold(model, some_data(), tolerance=0.0)
    middle = calibrate_threshold(model, some_data(), tolerance=0.02)
    assert middle.loss <= middle.full_loss + 0.02
    assert strict.loss <= strict.full_loss == middle.full_loss == free.full_loss
    assert free.mean_depth <= middle.mean_depth <= strict.mean_depth <= 3
    assert middle.tokens == 200
    # the model is left as it was
    assert model.exit_threshold == NEVER
    assert model.training


def test_mean_depth_is_read_off_the_state() -> None:
    model = make_model(columns=10, activity=0.2).eval()
    tokens = torch.randint(0, VOCAB, (2, 9))
    with torch.no_grad():
        _, state = model.step(tokens, model.init_state(2))
        assert mean_depth(state) == 3.0
        set_threshold(model, 1e-6)
        _, state = model.step(tokens, model.init_state(2))
    assert mean_depth(state) == 1.0
    assert mean_depth(model.init_state(1)) is None
    assert mean_depth(make_model("vanilla").init_state(1)) is None
