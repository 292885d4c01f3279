"""Figures are those of what the model computes, and pages are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.layers.norm import rms_norm
from holo_cli.models.brain_v1 import views
from holo_cli.models.brain_v1.diagnostics import feeding
from holo_cli.models.views import Weights
from tests.models.brain_v1.conftest import make_model, make_tokens

FORMS: list[dict[str, Any]] = [
    {},
    {"sparsity": "both", "columns_kept": 4},
    {"sparsity": "kwta"},
    {"sparsity": "dense"},
]


@pytest.mark.parametrize("given", FORMS)
def test_measured_sparsity_is_the_configured_one(given: dict[str, Any]) -> None:
    model = make_model(depth_schedule=True, activity=0.25, **given)
    figures = model.measures(make_tokens())
    for n, layer in enumerate(("layer1", "layer2", "layer3")):
        active = 1.0 if given.get("sparsity") == "dense" else (0.5, 0.25, 0.09375)[n]  # of 64 units
        assert figures[f"{layer}/sparsity_base"] == pytest.approx(1 - active)
        assert figures[f"{layer}/silent"] >= 1 - active
        assert (f"{layer}/largest_share" in figures) == (active < 1)
    assert figures["mean_depth"] == 3


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sparsity": "columns", "gate": "sigmoid"},
        {"sparsity": "kwta"},
        {"sparsity": "both", "columns_kept": 4},
    ],
)
def test_five_percent_fire_on_real_text(given: dict[str, Any]) -> None:
    text = (Path(__file__).parents[3] / "README_KO.md").read_bytes()[:2048]
    tokens = torch.tensor([list(text)]).view(-1, 32)
    shape = {"vocab_size": 256, "width": 32, "mlp_ratio": 5.0, "columns": 40, "activity": 0.05}
    model = make_model(**shape, **given)
    assert model.measures(tokens)["fires"] == pytest.approx(0.05, abs=0.001)
    if given.get("sparsity") is None:  # kept units below zero are silent there
        relu = make_model(**shape, **given, activation="relu")
        assert relu.measures(tokens)["fires"] < 0.049


@pytest.mark.parametrize("given", FORMS)
def test_columns_page(given: dict[str, Any]) -> None:
    model, tokens = make_model(**given), make_tokens(1, 11)[0]
    with torch.inference_mode():
        which, *choice, how_many = views.columns(model, tokens)
    routed = given.get("sparsity") in (None, "columns", "both")
    assert [picture.title for picture in choice] == ["How clear the choice of columns is"] * routed
    for last, first in (picture.variants["Block 2"] for picture in choice):
        assert all(a >= b for a, b in zip(last["y"], first["y"], strict=True))
    assert which.see is not None
    assert f"In {which.opens} tokens share" in which.see([f"w{i}" for i in range(11)])
    assert list(which.variants) == ["Block 1", "Block 2", "Block 3"]
    heat = torch.tensor(which.variants["Block 2"][0]["z"])
    assert heat.shape == (8, 11)
    part, x = feeding(model, tokens[None])[1]
    energy = part.unit_outputs(x)[0].unflatten(1, (8, -1)).square().mean(2).sqrt().T
    torch.testing.assert_close(heat, energy.float(), rtol=1e-3, atol=1e-5)
    table = how_many.tables[0]
    assert [row[0] for row in table.rows] == ["Block 1", "Block 2", "Block 3"]
    assert all(row[1] == (1.0 if given.get("sparsity") == "dense" else 0.25) for row in table.rows)
    assert len(which.tables) == 3
    assert len(which.tables[0].rows) == 8


def test_columns_of_a_text_too_short_to_compare_are_not_compared() -> None:
    model, tokens = make_model(sparsity="columns"), make_tokens(1, 2)[0]
    with torch.inference_mode():
        see = views.columns(model, tokens)[0].see
    assert see is not None
    assert "too short for a column to fire for several tokens" in see(["a", "b"])


def test_depth_page() -> None:
    model, tokens = make_model(), make_tokens(1, 11)[0]
    model.exit_threshold = 0.08
    with torch.inference_mode():
        where, how_sure, cost = views.depth(model, tokens)
        depths = model.depths(tokens[None])[0]
    assert where.variants["all tokens"][0]["y"] == depths.tolist()
    with torch.inference_mode():
        model.exit_threshold = 2.0
        x, said = rms_norm(model.embedding(tokens[None])), []
        for block in model.brain_blocks():
            x = block(x)[0]
            said.append(model.head(rms_norm(x))[0].argmax(-1).tolist())
        model.exit_threshold = 0.08
    settled = where.variants["all tokens"][1]["y"]
    for t, predictions in enumerate(zip(*said, strict=True)):
        same = [p == predictions[-1] for p in predictions]
        assert all(same[settled[t] - 1 :])
        assert settled[t] == 1 or not same[settled[t] - 2]
    assert min(settled) < max(settled)
    assert where.see is not None
    assert f"{depths.double().mean():.1f} of 3 layers" in where.see(["a"] * 11)
    assert "not trained to predict" in where.note
    assert model.exit_threshold == 0.08
    assert torch.tensor(how_sure.variants["all layers"][0]["z"]).shape == (3, 11)
    rows = how_sure.tables[0].rows
    assert rows[-1][2] == 1.0  # the last layer agrees with itself
    assert sum(int(str(row[3])) for row in rows) == 11
    # the frontier: from the first layer for all to all layers, whose loss is the model's own
    points = cost.tables[0].rows
    assert points[0][1] == 1.0
    assert points[-1][1] == 3.0
    model.exit_threshold = 2.0
    with torch.no_grad():
        whole = torch.nn.functional.cross_entropy(model(tokens[None])[0, :-1], tokens[1:])
    assert points[-1][2] == pytest.approx(whole.item(), rel=1e-3)
    assert [row[1] for row in points] == sorted(row[1] for row in points)
    assert len({row[1] for row in points}) > 4


def test_depth_page_says_when_exits_are_off() -> None:
    tokens = make_tokens(1, 11)[0]
    with torch.inference_mode():
        where, _, _ = views.depth(make_model(), tokens)
        assert where.see is not None
        said = where.see(["a"] * 11)
        assert said.startswith("Exits are off, so every token passes all 3 layers")
        assert "--exit-threshold auto" in said
        layers = where.variants["all tokens"][1]["y"]
        assert f"the prediction of {sum(y < 3 for y in layers) / 11:.0%} of them" in said
        assert "--set model.exit_loss=1 --set model.exit_confidence=learned" in where.note
        gated = make_model(layers=5, exit_loss=0.3, exit_confidence="learned", exit_every=2)
        where, how_sure, _ = views.depth(gated, tokens)
    assert "not trained" not in where.note
    blank = [row[0] is None for row in how_sure.variants["all layers"][0]["z"]]
    assert blank == [True, False, True, False, True]  # only exits have a gate


@pytest.mark.parametrize("top", [1.0, 0.3])
def test_attention_page(top: float) -> None:
    model, tokens = make_model(attention_top=top), make_tokens(1, 11)[0]
    with torch.inference_mode():
        shown = views.attention(model, tokens)
    assert isinstance(shown, Weights)
    for layer in shown.layers:
        assert layer.shape == (2, 11, 11)
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
        assert layer.triu(1).abs().max() == 0
    assert ("largest 30%" in shown.what) == (top < 1)
    assert ((shown.layers[0][:, -1] > 0).sum(-1) == (11 if top == 1 else 4)).all()


def test_pages_are_named() -> None:
    assert tuple(views.PAGES) == ("columns", "depth", "attention")
