"""What is logged, what is shown, and what can be set."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.errors import UsageError
from holo_cli.models.ngt.mixer import MIN_MASS, GravityMixer
from holo_cli.models.ngt.model import Model
from holo_cli.models.ngt.reference import CASES
from holo_cli.models.views import Picture, Weights
from holo_cli.registry import config_class
from tests.models.ngt.particles import config

# -- what is logged and shown ----------------------------------------------------------------------


@pytest.mark.parametrize("label", list(CASES))
def test_measures_are_those_of_the_physics(label: str) -> None:
    torch.manual_seed(0)
    model = Model(config(**CASES[label])).double().eval()
    tokens = torch.randint(0, 29, (2, 40))
    with torch.no_grad():
        got = model.measures(tokens)
    names = {"distance", "entropy", "mass_min", "mass_mean", "mass_max", "repulsion"}
    names |= set(model.blocks[0].mixer.kernel.figures())
    if "radius_mode" in CASES[label]:
        names |= {"radius", "beyond"}
    assert set(got) == {f"layer{n}/{name}" for n in (1, 2) for name in names}
    assert all(isinstance(value, float) for value in got.values())
    for n in (1, 2):
        mean = got[f"layer{n}/mass_mean"]
        # all weigh softplus(0) at first
        assert mean == pytest.approx(0.6931 + MIN_MASS, abs=1e-3)
        assert 0 < got[f"layer{n}/mass_min"] <= mean + 1e-9 <= got[f"layer{n}/mass_max"] + 2e-9
        assert 0 <= got[f"layer{n}/entropy"] <= torch.tensor(40.0).log()
        if "radius_mode" in CASES[label]:
            assert got[f"layer{n}/radius"] == CASES[label]["radius"]
            assert 0 <= got[f"layer{n}/beyond"] <= 1


def test_snapshots_agree_with_what_the_model_computes() -> None:
    """Weights from a snapshot, applied to its values, are what the mixer adds to the stream."""
    from holo_cli.models.ngt.diagnostics import snapshots
    from holo_cli.models.views import watched

    torch.manual_seed(0)
    model = Model(config(conv=3)).double().eval()
    mixer = model.blocks[1].mixer
    torch.nn.init.normal_(mixer.out.weight)
    tokens = torch.randint(0, 29, (1, 18))
    with torch.no_grad(), watched([mixer]) as calls:
        model.hidden(tokens)
    with torch.no_grad():
        last = snapshots(model, tokens)[1]
        torch.testing.assert_close(mixer._join(last.weights @ last.particles.v), calls[0][1][0])
    assert isinstance(mixer, GravityMixer)


@pytest.mark.parametrize("label", ["gravity", "gravity-soft", "lorentz-hard", "classic"])
def test_pages_hold_what_the_model_gives(label: str) -> None:
    import json

    from holo_cli.models.ngt import views

    torch.manual_seed(0)
    model = Model(config(**CASES[label])).eval()
    tokens = torch.randint(0, 29, (15,))
    with torch.inference_mode():
        where = views.coordinates(model, tokens)
        shown = views.attention(model, tokens)
        pictures = views.gravity(model, tokens)
    assert len(where.layers) == len(where.names) == len(shown.layers) == 2
    assert {tuple(x.shape) for x in where.layers} == {(15, 2 * model.config.dimensions)}
    assert where.mass is not None
    assert all((m > 0).all() and m.shape == (15,) for m in where.mass)
    for layer in shown.layers:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 15))
        assert (layer.triu(1) == 0).all()
    pulls, *others = pictures
    assert isinstance(pulls, Weights)
    assert pulls.title == "Attraction between tokens"
    assert pulls.opens is not None
    assert pulls.see is not None
    assert pulls.names[pulls.opens[0]] in pulls.see([f"w{i}" for i in range(15)])
    torch.testing.assert_close(pulls.layers[1], shown.layers[1])
    for picture in others:
        assert isinstance(picture, Picture)
        assert picture.opens == pulls.names[pulls.opens[0]]
        assert len(picture.variants) == len(picture.tables) == 2
        json.dumps([picture.variants, picture.layout], allow_nan=False)


@pytest.mark.parametrize("in_value", [False, True])
def test_what_is_taken_is_weight_times_what_is_sent(in_value: bool) -> None:
    from holo_cli.models.ngt import views
    from holo_cli.models.ngt.diagnostics import snapshots

    torch.manual_seed(0)
    model = Model(config(mass_in_value=in_value)).double().eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.mass.weight)
    tokens = torch.randint(0, 29, (12,))
    with torch.no_grad():
        shown = views.attention(model, tokens)
        layers = snapshots(model, tokens[None])
    assert "what they send" in shown.what if in_value else "a weight of 1" in shown.what
    for got, layer, block in zip(shown.layers, layers, model.blocks, strict=True):
        eps = block.mixer.kernel.eps()[:, None].detach()
        q, k, m = layer.particles.q[0], layer.particles.k[0], layer.masses[0].T
        for i, j in ((3, 0), (11, 7)):
            squared = (q[:, i : i + 1] - k[:, : i + 1]).square().sum(-1)  # (H, i + 1)
            pull = m[:, : i + 1] / (eps + squared) ** 4
            torch.testing.assert_close(got[:, i, j], (pull / pull.sum(-1, keepdim=True))[:, j])


def test_the_far_field_is_shown_where_there_is_one() -> None:
    from holo_cli.models.ngt import views

    torch.manual_seed(0)
    words = [f"w{i}" for i in range(15)]
    far = config(**CASES["gravity"], far_field="blocks", far_block=2, exact_blocks=1)
    assert views.length("far", far) == 16
    assert views.length("gravity", far) == 0
    model, tokens = Model(far).eval(), torch.randint(0, 29, (15,))
    with torch.inference_mode():
        shares, between, opened = views.far(model, tokens)
        short = views.far(model, tokens[:5])[0]
    near, open_blocks, bodies = shares.variants["Block 1"]
    total = [sum(y) for y in zip(near["y"], open_blocks["y"], bodies["y"], strict=True)]
    assert total == pytest.approx([1.0] * 15, abs=0.002)
    assert max(bodies["y"][:6]) == 0 < min(bodies["y"][6:])
    assert len(between.variants["Block 2"][0]["z"]) == len(opened.variants["Block 2"][0]["z"]) == 8
    assert shares.see is not None
    assert f"In {shares.opens} the last 9 tokens take" in shares.see(words)
    assert short.see is not None
    assert "No token of this text of 5 tokens meets a body: the first" in short.see(words)
    with torch.inference_mode(), pytest.raises(UsageError, match="no far field") as error:
        views.far(Model(config(**CASES["gravity"])).eval(), tokens)
    assert error.value.next_step == "Train with --set model.far_field=blocks."


# -- what can be set -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"width": 18, "heads": 4}, "multiple"),
        ({"coords": 0}, "coords"),
        ({"coords": 3}, "even"),
        ({"radius": -1.0}, "radius"),
        ({"power": -2.0}, "power"),
        ({"power": 0.0, "learn_power": True}, "power"),
        ({"eps": 0.001}, "eps"),
        ({"beta": 0.0}, "beta"),
        ({"tau": 0.0}, "tau"),
        ({"lambda_repulsion": -0.1}, "lambda_repulsion"),
        ({"repulsion_interval": 0}, "repulsion_interval"),
        ({"kernel": "antigravity"}, "kernel"),
        ({"kernel": "classic", "radius_mode": "soft"}, "classic"),
    ],
)
def test_wrong_values_are_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config(**given)


def test_coordinates_are_half_of_a_head_unless_set() -> None:
    assert config(width=64, heads=2).dimensions == 16
    assert config(width=24, heads=2).dimensions == 6
    assert config(width=20, heads=2).dimensions == 4  # half of ten, made even
    assert config(coords=6).dimensions == 6
    mixer = Model(config(width=64, heads=2)).blocks[0].mixer
    assert mixer.move.weight.shape == (2 * 2 * 16, 64)


@pytest.mark.parametrize(("preset", "parameters"), [("tiny", 5e5), ("25m", 25e6)])
def test_presets_build_on_the_meta_device(preset: str, parameters: float) -> None:
    from holo_cli.config.resolve import resolve

    made = resolve("ngt", preset=preset).model.model_copy(update={"vocab_size": 8192})
    assert isinstance(made, config_class("ngt"))
    with torch.device("meta"):
        model = Model(made)
    assert parameters < sum(p.numel() for p in model.parameters()) < 4 * parameters


def test_the_wikitext_preset_has_the_older_shape() -> None:
    from holo_cli.config.resolve import resolve

    found = resolve("ngt", preset="wikitext103-25m")
    model, training = found.model, found.training
    assert (model.layers, model.heads, model.width, model.context) == (8, 8, 512, 512)
    assert (model.dimensions, model.mlp_ratio * model.width) == (64, 2048)
    assert (training.batch_size, training.grad_accum, training.steps) == (16, 2, 15_000)
