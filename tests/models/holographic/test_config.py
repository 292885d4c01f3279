"""What can be set of the holographic model, its presets, and the pages that show it."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from holo_cli import registry
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import UsageError
from holo_cli.models.holographic import reference, views
from holo_cli.models.holographic.config import FIXED, LEARNED, Config
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.model import Model
from holo_cli.models.views import Weights
from holo_cli.visualize.tokens import with_tokens
from tests.models.holographic.parts import awake, config, randn


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"plates": 0}, "greater than or equal to 1"),
        ({"mixer": "hologram"}, "'memory', 'fftconv' or 'classic'"),
        ({"binding": "xor"}, "'phasor' or 'hrr'"),
        (
            {"binding": "hrr", "width": 4},
            "heads of more than 2 numbers, and model.width / model.heads is 2",
        ),
        ({"binding": "hrr", "phases": "gravity"}, "(gravity) is for model.binding phasor"),
        ({"phases": "laplace"}, "'learned', 'gaussian' or 'gravity'"),
        ({"phases": "gaussian", "phase_coords": 0}, "greater than or equal to 1"),
        ({"half_life_min": 10, "half_life_max": 5}, "must be at least model.half_life_min"),
        ({"half_life_min": 0}, "greater than 0"),
        ({"experts": 2, "experts_top_k": 3}, "must be at most model.experts"),
        ({"attention_every": 1}, "must be 0, or from 2 to"),
        ({"attention_every": 3}, "must be 0, or from 2 to"),
        ({"mixer": "classic", "blend": True}, "must be false"),
        ({"fft_modes": 0}, "greater than or equal to 1"),
        ({"balance": -1}, "greater than or equal to 0"),
        ({"bindin": "hrr"}, "Extra inputs"),
    ],
)
def test_wrong_values_are_named(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**overrides)
    assert len(caught.value.errors()) == 1
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "vocabulary", "parameters", "active"),
    [
        ("tiny", 65, 768_160, 768_160),
        ("full", 2048, 2_311_756, 1_263_180),
        ("recall", 2048, 1_026_080, 1_026_080),
        ("talk", 2048, 531_282, 531_282),
        ("25m", 8192, 29_425_792, 29_425_792),
        ("227m", 32_000, 230_083_908, 116_837_700),
    ],
)
def test_presets_have_the_size_they_say(
    preset: str, vocabulary: int, parameters: int, active: int
) -> None:
    with registry.preset_path("holographic", preset).open("rb") as file:
        given = tomllib.load(file)["model"]
    with torch.device("meta"):
        model = Model(Config(vocab_size=vocabulary, **given))
    assert all(p.device.type == "meta" for p in model.parameters())
    described = model.describe()
    assert (described.parameters, described.active_parameters) == (parameters, active)


def test_muon_gets_each_plate_as_a_matrix_and_no_dial() -> None:
    model = Model(config(phases="learned", plates=3, experts=4, blend=True, topology=True))
    matrices = model.matrices()
    splits = {name.partition(".")[2]: getattr(p, "splits", 1) for name, p in matrices.items()}
    block = {name.partition(".")[2]: n for name, n in splits.items()}
    assert block == {
        "mixer.value.weight": 1,
        "mixer.gate.weight": 1,
        "mixer.out.weight": 1,
        "mixer.memory.binding.qk_proj.weight": 6,
        "mixer.blend.qk.weight": 2,
        "mlp.up.weight": 4,
        "mlp.down.weight": 4,
    }


def test_plates_of_fixed_frequencies_cost_no_parameters() -> None:
    """A head's point has d coordinates, however many plates read it; Muon sees two matrices. A
    plate costs an offset for each channel."""
    few, many = (
        Model(config(experts=1, phases="gaussian", plates=r, phase_coords=3)) for r in (1, 16)
    )
    assert many.describe().parameters - few.describe().parameters == 2 * 15 * 16 // 2
    matrices = {n: p for n, p in many.matrices().items() if "binding" in n}
    assert list(matrices) == [f"blocks.{i}.mixer.memory.binding.qk_proj.weight" for i in range(2)]
    for weight in matrices.values():
        assert weight.shape == (2 * 2 * 3, 16)
        assert getattr(weight, "splits", 1) == 2
    assert many.state_bytes(64) > 8 * few.state_bytes(64)


def test_an_old_config_is_of_one_plate_of_learned_phases() -> None:
    """Whether it was stored before or after the keys of other phases existed."""
    small = {"vocab_size": 29, "layers": 2, "heads": 2, "width": 16}
    for stored in (small | {"plates": 1, "rope_fraction": 1.0}, small):
        assert {key: getattr(Config.from_stored(stored), key) for key in LEARNED} == LEARNED


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, FIXED),
        ({"phases": "gravity"}, FIXED | {"phases": "gravity"}),
        ({"plates": 4, "blend": True}, FIXED | {"plates": 4}),
        ({"phases": "learned"}, LEARNED),
        ({"phases": "learned", "plates": 2}, LEARNED | {"plates": 2}),
        ({"binding": "hrr"}, LEARNED),
        ({"mixer": "fftconv"}, LEARNED),
        ({"mixer": "classic", "rope_fraction": 0.5}, LEARNED | {"rope_fraction": 0.5}),
    ],
)
def test_the_other_forms_need_no_more_keys(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Neither for a model from the start nor for an entry of a plan, which changes a preset."""
    started = resolve(
        "holographic", sets=[f"model.{k}={v}".lower() for k, v in given.items()], env={}
    )
    changed = resolve("holographic", env={}).replace({f"model.{k}": v for k, v in given.items()})
    for made in (config(**given), started.model, changed.model):
        assert {key: getattr(made, key) for key in LEARNED} == expected


@pytest.mark.parametrize(("preset", "plates"), [("talk", 1), ("25m", 2), ("227m", 2)])
def test_these_presets_keep_learned_phases(preset: str, plates: int) -> None:
    made = resolve("holographic", preset, env={})
    assert {key: getattr(made.model, key) for key in LEARNED} == LEARNED | {"plates": plates}
    other = resolve("holographic", preset, sets=["model.phases=gaussian"], env={}).model
    assert {key: getattr(other, key) for key in FIXED} == FIXED | {"plates": plates}


def test_a_stored_run_keeps_its_plates_when_another_key_changes() -> None:
    """One plate was the default when it was trained, and its header says so of every key."""
    stored = resolve("holographic", env={}).to_dict()
    stored["config"]["model"] |= LEARNED
    again = Resolved.from_dict(stored).replace({"training.steps": 900, "model.conv": 4})
    assert {key: getattr(again.model, key) for key in LEARNED} == LEARNED


def test_measures_tell_what_the_mechanism_does() -> None:
    torch.manual_seed(0)
    model = Model(config(blend=True, experts=3)).eval()
    tokens = torch.randint(0, 29, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.measures(tokens)
    assert found["half_life"] == pytest.approx(math.sqrt(4 * 4096), rel=1e-3)
    assert found["memory_share"] == pytest.approx(0.05 + 0.85 / (1 + math.exp(2)), abs=1e-4)
    assert 0 <= found["smallest_category"] <= 1 / 3 <= found["largest_category"] <= 1


@pytest.mark.parametrize("label", list(reference.CASES))
def test_pages_are_plain_values_or_say_why_not(label: str) -> None:
    import json

    torch.manual_seed(0)
    model = Model(config(**reference.CASES[label])).eval()
    tokens = torch.randint(0, 29, (20,), generator=torch.Generator().manual_seed(0))
    for page in views.PAGES:
        absent = {
            "interference": model.config.mixer == "classic",
            "experts": model.config.experts == 1,
        }
        with torch.inference_mode():
            if absent[page]:
                with pytest.raises(UsageError):
                    getattr(views, page)(model, tokens)
                continue
            pictures = getattr(views, page)(model, tokens)
        for picture in pictures:
            if isinstance(picture, Weights):
                for layer in picture.layers:
                    assert layer.triu(1).abs().max() == 0
                    torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
                continue
            picture = with_tokens(picture, [f"<{t}>" for t in range(20)])
            assert json.dumps(dict(picture.variants), allow_nan=False)
            assert picture.variants
            for table in picture.tables:
                assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_page_of_phases_shows_what_is_in_phase() -> None:
    """A token asked for with its own key agrees with itself fully, and the future is left out."""
    memory = awake(Memory(config(plates=2)))
    _, k = memory.binding.keys(randn(1, 9, 16))
    for heat in views.agreement(k, k):
        torch.testing.assert_close(heat.diagonal(), torch.ones(9, dtype=torch.float64))
        assert heat[2, 3:].isnan().all()
        assert heat.nan_to_num().abs().max() <= 1 + 1e-12


def test_loudness_is_the_share_of_what_is_read() -> None:
    """With one channel and one value the answer is the sum that loudness tells the shares of."""
    from holo_cli.models.holographic.views import loudness

    memory = awake(Memory(config(heads=1, width=16, plates=3)))
    x = randn(1, 7, 16)
    q, k = memory.binding.keys(x)
    log_a, b = memory.gates(x)
    loud = loudness(q, k, log_a, b)[0]
    for t, s in ((6, 6), (6, 2), (3, 0)):
        table = (q.re[0, 0, t] - 1j * q.im[0, 0, t]) * (k.re[0, 0, s] + 1j * k.im[0, 0, s])
        size = table.mean(0).abs().mean() * b[0, 0, s] * log_a[0, 0, s + 1 : t + 1].sum().exp()
        own = ((q.re[0, 0, t] - 1j * q.im[0, 0, t]) * (k.re[0, 0, t] + 1j * k.im[0, 0, t])).mean(0)
        own = own.abs().mean() * b[0, 0, t]
        torch.testing.assert_close(loud[t, s] / loud[t, t], size / own)
