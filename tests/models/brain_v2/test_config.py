"""Presets, settings out of range, and what is logged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from holo_cli.config.resolve import resolve
from holo_cli.errors import UsageError
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.model import Model
from holo_cli.registry import preset_names
from tests.models.brain_v2.parts import config, model, tokens

# parameters at the vocabulary that the preset is meant for
SIZES = {
    "tiny": (65, 0.774e6),
    "cortex": (2048, 1.2e6),
    "talk": (2048, 0.592e6),
    "25m": (8192, 29.4e6),
    "small": (32_000, 112.7e6),
    "medium": (32_000, 346e6),
    "large": (32_000, 775e6),
}


def test_there_are_these_presets() -> None:
    assert sorted(preset_names("brain-v2")) == sorted(SIZES)


@pytest.mark.parametrize("preset", SIZES)
def test_presets_have_their_size(preset: str) -> None:
    vocabulary, wanted = SIZES[preset]
    resolved = resolve("brain-v2", preset=preset, env={})
    settings = resolved.model.model_dump() | {"vocab_size": vocabulary}
    with torch.device("meta"):
        made = Model(Config(**settings))
    found = sum(p.numel() for p in made.parameters())
    assert found == pytest.approx(wanted, rel=0.02)
    assert made.describe().parameters == found


def test_an_interleaved_layer_has_one_part() -> None:
    made = resolve("brain-v2", preset="25m", env={}).model
    assert isinstance(made, Config)
    assert made.layout == "interleaved"
    kinds = [(made.has_state_space(n), made.has_memory(n), made.has_attention(n)) for n in range(8)]
    space, memory, attention = (True, False, False), (False, True, False), (False, False, True)
    assert kinds == [space, memory, space, attention] * 2
    assert all(config(layers=8).has_state_space(n) for n in range(8))
    made = config(layers=8, layout="interleaved")
    parts = [[type(p).__name__ for p in b.mixer.parts()] for b in Model(made).layers()]  # type: ignore[union-attr]
    assert parts[:2] == [["Scalar"], ["EpisodicMemory"]]
    assert parts[3] == ["SelectiveAttention"]


def test_values_carried_between_layers_need_a_state_space_in_each() -> None:
    for key in ("value_residual", "value_embedding"):
        carried = resolve("brain-v2", preset="tiny", sets=[f"model.{key}=true"], env={}).model
        assert isinstance(carried, Config)
        assert carried.layout == "added"
    assert Config(vocab_size=29).layout == "interleaved"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"state": 7}, "model.state .7. must be even"),
        ({"dt_min": 0.5}, "model.dt_min .0.5. must be at most model.dt_max"),
        ({"attention_share": 0.0}, "attention_share"),
        ({"attention_share": 1.5}, "attention_share"),
        ({"memory": "hopfield"}, "memory"),
        ({"layout": "alternating"}, "layout"),
        ({"layout": "interleaved", "value_residual": True}, "only the state space has values"),
        ({"ponder": 0}, "ponder"),
        ({"ponder_prior": 1.0}, "ponder_prior"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**given)


def test_a_wrong_setting_is_one_sentence_for_the_user() -> None:
    with pytest.raises(UsageError, match="must be even"):
        resolve("brain-v2", preset="tiny", sets=["model.state=7"], env={})


def test_a_memory_that_attention_crowds_out_is_warned_of() -> None:
    crowded = config(layout="interleaved", layers=4, attention_every=2, memory_every=2)
    assert "No layer has a memory" in crowded.caution()
    for fine in (
        {"attention_every": 4},
        {"layout": "added"},
        {"memory": "none"},
        {"memory_every": 5},  # above the number of layers: plainly asked for
    ):
        given = {"layout": "interleaved", "layers": 4, "attention_every": 2, "memory_every": 2}
        assert config(**{**given, **fine}).caution() == ""


def test_what_is_logged() -> None:
    made = model(layers=4, memory_every=2, attention_every=4, ponder=3)
    with torch.no_grad():
        found = made.measures(tokens(2, 60))
    assert set(found) == {
        "state_half_life", "memory_half_life", "selected_4",
        "steps_1", "steps_2", "steps_3", "steps_4",
    }  # fmt: skip
    assert found["state_half_life"] > 0
    torch.manual_seed(0)
    fresh = Model(config(layers=2, memory_every=2)).measures(tokens(2, 60))
    # two heads with steps of 0.1 and 0.001; a memory that lets go of a thousandth a token
    assert fresh["state_half_life"] == pytest.approx(math.log(2) / 0.01, rel=1e-3)
    assert fresh["memory_half_life"] == pytest.approx(math.log(2) / 0.001, rel=1e-3)
    assert 0 <= found["selected_4"] <= 0.2
    assert all(1 <= found[f"steps_{layer}"] <= 3 for layer in range(1, 5))
    assert set(model(memory="none", attention_every=0).measures(tokens(1, 20))) == {
        "state_half_life"
    }
