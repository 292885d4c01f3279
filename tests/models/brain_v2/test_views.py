"""brain-v2's pages show what the model computes, and say so when there is nothing to show."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.errors import UsageError
from holo_cli.models.brain_v2 import views
from holo_cli.models.brain_v2.reference import CASES
from holo_cli.models.suffix_views import suffix
from holo_cli.models.views import watched
from tests.models.brain_v2.parts import model, tokens


def text(length: int = 40) -> torch.Tensor:
    return tokens(1, length)[0]


@torch.inference_mode()
def pictures(page: str, **given: Any) -> list[Any]:
    found: list[Any] = getattr(views, page)(model(**given), text())
    return found


def test_the_model_names_its_pages() -> None:
    assert tuple(views.PAGES) == ("memory", "attention", "depth")


@torch.inference_mode()
def test_what_is_read_adds_up_to_what_the_memory_says() -> None:
    """The weights shown, times what was written (for Hebb: beta v), are the memory's output."""
    made = model(memory="hebbian", memory_every=1)
    part = made.layers()[0].mixer.memory
    with watched([part]) as calls:
        made.hidden(text()[None])
    u = calls[0][0]
    from holo_cli.models.brain_v2.episodic import chunk_delta_rule

    q, k, v = part.keys(u)
    log_alpha, beta = part.gates(u)
    o, _ = chunk_delta_rule(q, k, v, log_alpha, beta, delta=False)
    for h, weights in enumerate(views.reading(part, u)):
        assert weights[3, 4:].isnan().all()
        again = weights.nan_to_num() @ (beta[0, h, :, None] * v[0, h])
        torch.testing.assert_close(again, o[0, h])


@torch.inference_mode()
def test_one_shot_binding_on_a_text() -> None:
    """Right after it was written a value is known, at beta 1 all of it."""
    made = model(memory_every=1)
    part = made.layers()[0].mixer.memory
    part.gates_proj.weight.zero_()
    part.gates_bias[:1], part.gates_bias[1:] = -20.0, 20.0  # forget nothing, write all
    u = torch.randn(1, 30, 16, dtype=torch.float64)
    shown = views.binding(part, u)
    torch.testing.assert_close(shown["after"], torch.ones(30, dtype=torch.float64))
    assert (shown["before"] < 0.99).all()
    assert shown["at the end"][-1] > 0.999
    assert shown["at the end"][:-1].mean() < 1


def test_memory_page() -> None:
    written, read, bound = pictures("memory", memory_every=1)
    assert list(written.variants) == ["Block 1", "Block 2"]
    for trace in written.variants["Block 1"]:
        assert len(trace["x"]) == len(trace["y"]) == 40
        assert all(0 <= beta <= 1 for beta in trace["y"])
    assert list(read.variants) == ["Block 1, head 1", "Block 2, head 1"]
    heat = read.variants["Block 1, head 1"][0]["z"]
    assert heat[0][1] is None
    assert all(isinstance(value, float) for value in heat[-1])
    assert [trace["name"] for trace in bound.variants["Block 1"]] == [
        "before", "after", "at the end",
    ]  # fmt: skip
    assert len(written.tables) == 2


def test_a_memory_that_is_alone_is_not_compared() -> None:
    for every, said in ((1, "learns the most"), (2, "the only block with a memory")):
        shown = pictures("memory", memory_every=every)[0]
        assert said in shown.see([str(n) for n in range(40)])


def test_attention_page() -> None:
    scores, weights = pictures("attention", **CASES["attention"])
    above, chosen = scores.variants["Block 2"]
    assert all(above["y"][place] > 0 for place in chosen["x"])
    heat = weights.variants["Block 2, head 2"][0]["z"]
    for place in range(40):
        row = [value for value in heat[place] if value is not None]
        if place in chosen["x"]:
            assert sum(row) == pytest.approx(1, abs=1e-2)
            assert len(row) == chosen["x"].index(place) + 1
        else:
            assert row == []


def test_depth_page() -> None:
    (page,) = pictures("depth", ponder=4, ponder_rest=0.3)
    steps, mean = page.variants["Block 1"]
    assert set(steps["y"]) <= {1, 2, 3, 4}
    assert all(m <= s + 1e-3 for m, s in zip(mean["y"], steps["y"], strict=True))


@pytest.mark.parametrize(
    ("page", "given", "key"),
    [
        ("memory", {"memory": "none"}, "model.memory"),
        (
            "memory",
            {"memory_every": 2, "attention_every": 2, "layout": "interleaved"},
            "model.attention_every",
        ),
        ("attention", {"attention_every": 0}, "model.attention_every"),
        ("depth", {}, "model.ponder"),
    ],
)
def test_what_is_switched_off_is_said(page: str, given: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=key) as caught:
        pictures(page, **given)
    assert f"--set {key}" in caught.value.next_step


@pytest.mark.parametrize("memory", ["delta", "none"])
@torch.inference_mode()
def test_what_the_suffix_memory_proposed(memory: str) -> None:
    made = model(suffix=True, memory=memory)
    ids = torch.tensor([3, 4, 5, 3, 4, 5, 9, 3, 7])
    shown = views.memory(made, ids)[-1]
    length, gate, hits = shown.variants["all"]
    assert length["y"] == [0, 0, 0, 1, 2, 3, 0, 1]  # after the last token nothing is known to come
    assert [at != 0 for at in gate["y"]] == [n > 0 for n in length["y"]]
    assert hits["x"] == [3, 4]
    assert [row[:3] for row in shown.tables[0].rows] == [
        ["1", 2, 0.5],
        ["2", 1, 1.0],
        ["3 to 4", 1, 0.0],
    ]
    assert shown.see is not None
    assert "at 4 of 8 tokens, and 50 %" in shown.see([str(n) for n in ids.tolist()])
    (page,) = suffix(made, ids)  # the page that every model has
    assert page.see is not None
    assert page.see(["?"] * 9) == shown.see(["?"] * 9)
    with pytest.raises(UsageError, match=r"model\.suffix is false"):
        suffix(model(), ids)
    fresh = views.memory(made, torch.tensor([1, 2, 3]))[-1]
    assert fresh.see is not None
    assert fresh.see(["a", "b", "c"]).startswith("No token")
