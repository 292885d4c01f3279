"""A radius limits whom a token feels, and what it saves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from holo_cli.models.ngt import radius as radius_module
from holo_cli.models.ngt import tiles
from holo_cli.models.ngt.model import Model
from holo_cli.models.ngt.radius import (
    RadiusCutoff,
    attention_within_radius,
    general_attention,
    weights,
)
from tests.models.ngt.particles import ATTRACTING, D, E, H, T, config, kernel_of, particles


def cutoff_of(mode: str, radius: float, tau: float = 1.0) -> RadiusCutoff:
    made = config(heads=H, width=H * 8, radius_mode=mode, radius=radius, tau=tau)
    return RadiusCutoff(made).double()


@pytest.mark.parametrize("name", ATTRACTING)
def test_a_hard_radius_cuts_the_far_and_keeps_the_self(name: str) -> None:
    kernel = kernel_of(name)
    q, k, m, _ = particles()
    q = q + 50  # every token is out of its own reach too
    w = weights(kernel, cutoff_of("hard", 1.0).eval(), q, k, m, m.log())
    torch.testing.assert_close(w, torch.eye(T, dtype=w.dtype).expand_as(w))
    q, k, m, _ = particles()
    w = weights(kernel, cutoff_of("hard", 2.0).eval(), q, k, m, m.log())
    past = torch.ones(T, T).tril(-1).bool()
    far = kernel.squared(q, k) > 4.0
    assert (w[far & past] == 0).all()
    assert (w[~far & past] > 0).all()
    assert 0.1 < far[..., past].double().mean() < 0.999


def test_a_soft_radius_cuts_the_weight_and_not_the_score() -> None:
    """Tokens beyond it lose weight, whatever the sign of their score; a narrow one is hard."""
    kernel = kernel_of("gravity")
    q, k, m, _ = particles()
    free = weights(kernel, None, q, k, m, m.log())
    soft = weights(kernel, cutoff_of("soft", 2.0), q, k, m, m.log())
    past = torch.ones(T, T).tril(-1).bool()
    far = (kernel.squared(q, k) > 16.0) & past
    assert far.any()
    odds_free = free / free.diagonal(dim1=-2, dim2=-1)[..., None]
    odds_soft = soft / soft.diagonal(dim1=-2, dim2=-1)[..., None]
    assert (odds_soft[far] < 1e-4 * odds_free[far]).all()
    narrow = weights(kernel, cutoff_of("soft", 2.0, tau=1e-6), q, k, m, m.log())
    hard = weights(kernel, cutoff_of("hard", 2.0).eval(), q, k, m, m.log())
    torch.testing.assert_close(narrow, hard, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("queries", [T, 9, 2, 1])
@pytest.mark.parametrize("radius", [0.0, 0.7, 2.0, 4.0, 100.0])
@pytest.mark.parametrize("name", ATTRACTING)
def test_tiles_change_nothing(name: str, radius: float, queries: int) -> None:
    kernel, cutoff = kernel_of(name), cutoff_of("hard", radius).eval()
    q, k, m, v = particles(queries=queries, spread=2.0)
    given = (q, k, m[:, :, -queries:], m.log(), v)
    with torch.no_grad():
        torch.testing.assert_close(
            attention_within_radius(kernel, cutoff, *given),
            general_attention(kernel, cutoff, *given),
        )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("power", [0.5, 2.0, 3.0, 4.0, 6.0, 8.0, "learned"])
def test_tiles_of_every_power_change_nothing(power: float | str) -> None:
    given = {"learn_power": True} if power == "learned" else {"power": power}
    kernel, cutoff = kernel_of("gravity", **given), cutoff_of("hard", 2.0).eval()
    q, k, m, v = particles()
    with torch.no_grad():
        torch.testing.assert_close(
            attention_within_radius(kernel, cutoff, q, k, m, m.log(), v),
            general_attention(kernel, cutoff, q, k, m, m.log(), v),
        )


@pytest.mark.parametrize("name", ATTRACTING)
def test_blocks_out_of_reach_are_really_skipped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in five far-apart clusters, a block each: only the diagonal is worked on."""
    for size in ("QUERIES", "KEYS"):
        monkeypatch.setattr(tiles, size, 8)
    kernel, cutoff = kernel_of(name), cutoff_of("hard", 3.0).eval()
    torch.manual_seed(0)
    axes = torch.cat((torch.eye(D), -torch.eye(D)[:1])).double()
    z = 30 * axes.repeat_interleave(8, dim=0) + 0.3 * torch.randn(1, H, 40, D).double()
    m, v = torch.ones(1, H, 40, 1).double(), torch.randn(1, H, 40, E).double()
    pairs = 0
    form = kernel.tile_form(z, z, cutoff.radius.square())
    assert form is not None

    def counted(x: Tensor) -> Tensor:
        nonlocal pairs
        pairs += x.numel()
        return form.rising(x)

    monkeypatch.setattr(type(kernel), "tile_form", lambda *_: form._replace(rising=counted))
    y = attention_within_radius(kernel, cutoff, z, z, m, m.log(), v)
    assert pairs == H * 5 * 8 * 8
    torch.testing.assert_close(y, general_attention(kernel, cutoff, z, z, m, m.log(), v))


def counted_tiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the keys of each call of the tiled form."""
    keys: list[int] = []
    real = tiles.tiled_attention

    def counting(form: tiles.TileForm, u: Tensor, near: Tensor | None = None) -> Tensor:
        keys.append(u.shape[1])
        return real(form, u, near)

    monkeypatch.setattr(radius_module, "tiled_attention", counting)
    return keys


@pytest.mark.parametrize(("mode", "tiled"), [("none", False), ("hard", True), ("soft", False)])
@pytest.mark.usefixtures("small_blocks")
def test_a_long_prompt_in_tiles_decodes_as_training_computes(
    mode: str, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in pieces that continue a state, and token by token after them."""
    keys = counted_tiles(monkeypatch)
    torch.manual_seed(0)
    model = Model(config(radius_mode=mode, radius=2.0, tau=0.5)).double().eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.out.weight, std=0.3)
    tokens = torch.randint(0, 29, (2, 40))
    plain = model(tokens)
    assert not keys
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain, rtol=0, atol=1e-10)
        pieces, state = [], model.init_state(2)
        for start, end in ((0, 17), (17, 36), *((at, at + 1) for at in range(36, 40))):
            logits, state = model.step(tokens[:, start:end], state)
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), plain, rtol=0, atol=1e-10)
    assert (len(keys) > 0) is tiled


def test_the_model_evaluates_with_skipping_as_without() -> None:
    """A prompt of several blocks: no_grad skips, grad mode does not."""
    torch.manual_seed(0)
    model = Model(config(radius_mode="hard", radius=2.0, context=200)).double().eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.out.weight, std=0.3)
    tokens = torch.randint(0, 29, (2, 150))
    plain = model(tokens)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain, rtol=0, atol=1e-10)
        head, state = model.step(tokens[:, :97], model.init_state(2))
        tail, _ = model.step(tokens[:, 97:], state)
    torch.testing.assert_close(torch.cat((head, tail), 1), plain, rtol=0, atol=1e-10)
    assert plain.shape == (2, 150, 29)
