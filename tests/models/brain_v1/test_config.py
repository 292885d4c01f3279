"""What can be set, what cannot, and that the presets are the sizes they say."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import torch

from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.model import Model
from holo_cli.registry import preset_names, preset_path
from tests.models.brain_v1.conftest import make_config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"activity": 0.0}, "above 0 and at most 1"),
        ({"activity": 1.5}, "above 0 and at most 1"),
        ({"activity": -0.1}, "above 0 and at most 1"),
        ({"columns": 7}, "must divide the hidden units"),
        ({"columns_kept": 9}, "at most model.columns"),
        ({"shared_columns": 2}, "leave a column to choose"),
        ({"growth": (2, 1)}, "must rise from stage to stage"),
        ({"growth": (1, 1, 2)}, "must rise from stage to stage"),
        ({"growth": (0, 2)}, "must rise from stage to stage"),
        ({"growth": (1, 2, 4)}, "deeper than the model: model.layers is 3"),
        ({"growth": (1, 2), "growth_at": (0.5,)}, "must have 2 shares"),
        ({"growth": (1, 2), "growth_at": (0.5, 0.2)}, "must rise from stage to stage"),
        ({"growth": (1, 2), "growth_at": (0.5, 1.0)}, "must rise from stage to stage"),
        ({"two_four": "all", "columns": 32}, "multiples of 4"),
        ({"adapters": 4, "language": "fr"}, "must be one of model.languages"),
        ({"language_tokens": (1,)}, "1 id for 2 languages"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_config(**given)


def test_stages_of_growth() -> None:
    config = make_config(layers=24, growth=(2, 4, 8, 12))
    assert [stage.layers for stage in config.stages()] == [2, 4, 8, 12, 24]
    assert [stage.at for stage in config.stages()] == [0.0, 0.125, 0.25, 0.375, 0.5]
    timed = make_config(growth=(1, 3), growth_at=(0.3,))  # the last stage may be the whole model
    assert [tuple(stage) for stage in timed.stages()] == [(0.0, 1), (0.3, 3)]
    assert make_config().stages() == ()


def test_active_units_are_the_nearest_whole_number() -> None:
    config = make_config(layers=6, depth_schedule=True, activity=0.125)
    assert [config.active_units(n) for n in range(6)] == [16, 16, 8, 8, 3, 3]  # of 64
    assert [config.kept_columns(n) for n in range(6)] == [2, 2, 1, 1, 1, 1]  # of 8 units each
    assert Config(width=1024, heads=16).active_units(0) == 256  # 5.0 % of 5,120
    assert Config(width=1024, heads=16).kept_columns(0) == 2


def test_markers_come_from_the_tokenizer() -> None:
    specials = {"<|end|>": 0, "<|en|>": 7, "<|ko|>": 8}
    assert make_config(adapters=4).from_specials(specials) == {"language_tokens": (8, 7)}
    assert make_config(adapters=4).from_specials({"<|en|>": 7}) == {"language_tokens": (-1, 7)}
    assert make_config(adapters=4).from_specials({"<|end|>": 0}) == {}
    assert make_config().from_specials(specials) == {}


GPT2_TOKENS = 50_257
SHAPES = {  # layers, width, heads, vocabulary, parameters: the older systems' but for 25m
    "25m": (8, 512, 8, 8192, 34e6),
    "small": (6, 512, 8, GPT2_TOKENS, 60e6),
    "medium": (12, 1024, 16, GPT2_TOKENS, 222e6),
    "large": (24, 1536, 24, GPT2_TOKENS, 495e6),
    "xlarge": (48, 2048, 32, GPT2_TOKENS, 2.59e9),
}


@pytest.mark.parametrize("name", SHAPES)
def test_presets_have_the_sizes_they_say(name: str) -> None:
    layers, width, heads, vocab_size, parameters = SHAPES[name]
    text = preset_path("brain-v1", name).read_text(encoding="utf-8")
    config = Config(**tomllib.loads(text)["model"], vocab_size=vocab_size)
    assert (config.layers, config.width, config.heads) == (layers, width, heads)
    with torch.device("meta"):
        model = Model(config)
    described = model.describe()
    assert described.parameters == sum(p.numel() for p in model.parameters())
    assert described.parameters == pytest.approx(parameters, rel=0.02)
    assert described.notes["activity"] == [0.05] * layers


def test_presets_there_are() -> None:
    assert set(preset_names("brain-v1")) == {*SHAPES, "tiny", "quick", "cortex", "talk"}
    for name in ("tiny", "quick"):
        text = preset_path("brain-v1", name).read_text(encoding="utf-8")
        model = Model(Config(**tomllib.loads(text)["model"], vocab_size=65))
        assert model.describe().parameters == pytest.approx(0.95e6, rel=0.02)
        assert model.describe().active_parameters == pytest.approx(0.324e6, rel=0.02)


def test_a_config_stored_before_units_kept_their_sign_computes_what_it_did() -> None:
    stored = make_config().model_dump(mode="json")
    del stored["activation"]
    assert Config.from_stored(stored).activation == "relu"
    assert make_config().activation == "signed"


def test_a_config_stored_before_columns_could_choose_themselves_is_read() -> None:
    stored = make_config().model_dump(mode="json")
    del stored["selection_inputs"]
    assert Config.from_stored(stored) == make_config()
    assert make_config().sparsity == "columns"


def test_the_inputs_of_the_choice_are_a_multiple_of_four() -> None:
    assert make_config().selection_width == 4  # an eighth of 16 would be two
    assert make_config(selection_inputs=0.5).selection_width == 8
    assert make_config(selection_inputs=0.55).selection_width == 12
    assert make_config(selection_inputs=1.0).selection_width == 16


def test_a_gate_without_a_router_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.gate \(sigmoid\) is for a router's value"):
        make_config(sparsity="self", gate="sigmoid")
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="selection_inputs"):
            make_config(selection_inputs=share)
