"""Layers that several models share: against plain forms, and by finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holo_cli.layers import causal
from holo_cli.layers.cache import KVCache
from holo_cli.layers.conv import ShortConv
from holo_cli.layers.embedding import Embedding
from holo_cli.layers.mlp import relu_squared
from holo_cli.layers.norm import EPS, rms_norm
from holo_cli.layers.rope import Rope


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_rms_norm_is_the_formula_with_the_right_gradient() -> None:
    x = randn(3, 5, 8).requires_grad_()
    plain = F.rms_norm(x, (8,), eps=EPS)
    torch.testing.assert_close(rms_norm(x), plain)
    assert torch.autograd.gradcheck(rms_norm, (x,))
    # the eps counts where the input is tiny
    tiny = (1e-4 * randn(2, 8)).requires_grad_()
    torch.testing.assert_close(rms_norm(tiny), F.rms_norm(tiny, (8,), eps=EPS))
    assert torch.autograd.gradcheck(rms_norm, (tiny,), eps=1e-8, atol=1e-3)


def test_rms_norm_of_bfloat16_stays_close_and_keeps_the_dtype() -> None:
    x = randn(4, 64)
    low = rms_norm(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), rms_norm(x), rtol=2e-2, atol=2e-2)


def test_relu_squared() -> None:
    x = randn(50).requires_grad_()
    torch.testing.assert_close(relu_squared(x), x.clamp_min(0) ** 2)
    assert torch.autograd.gradcheck(relu_squared, (x,))


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    length, total = q.shape[2], k.shape[2]
    score = q @ k.mT / math.sqrt(q.shape[3])
    future = torch.ones(length, total, dtype=torch.bool).triu(total - length + 1)
    return score.masked_fill(future, -math.inf).softmax(-1) @ v


@pytest.mark.parametrize(("length", "total"), [(7, 7), (1, 7), (3, 7), (63, 63)])
def test_causal_attention_is_softmax_over_the_past(length: int, total: int) -> None:
    q, k, v = randn(2, 3, length, 4), randn(2, 3, total, 4, seed=1), randn(2, 3, total, 6, seed=2)
    torch.testing.assert_close(causal.causal_attention(q, k, v), plain_attention(q, k, v))


@pytest.mark.parametrize("length", [1, 4, 5, 11, 63])
def test_attention_in_blocks_equals_the_plain_form(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "BLOCK", 5)  # several blocks, the last one ragged
    q, k = (randn(2, 2, length, 4, seed=s).requires_grad_() for s in (0, 1))
    v = randn(2, 2, length, 3, seed=2).requires_grad_()
    weight = randn(2, 2, length, 3, seed=3)
    fast = causal.block_attention(q, k, v, 0.5)
    plain = plain_attention(q, k, v)  # its scale is d^-1/2 = 0.5
    torch.testing.assert_close(fast, plain)
    grads = torch.autograd.grad((fast * weight).sum(), (q, k, v))
    for got, expected in zip(
        grads, torch.autograd.grad((plain * weight).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_attention_in_blocks_passes_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "BLOCK", 3)
    inputs = tuple(randn(1, 2, 7, 2, seed=s).requires_grad_() for s in range(3))
    assert torch.autograd.gradcheck(lambda q, k, v: causal.block_attention(q, k, v, 0.7), inputs)


def test_rope_makes_scores_depend_on_distance_only() -> None:
    rope = Rope(8, 100.0, 1.0)
    q, k = randn(1, 1, 1, 8), randn(1, 1, 1, 8, seed=1)

    def score(i: int, j: int) -> float:
        return float((rope(q, i) * rope(k, j)).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-12)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)
    torch.testing.assert_close(rope(q, 3).norm(), q.norm())
    torch.testing.assert_close(rope(q, 0), q)


def test_rope_leaves_the_unrotated_share_alone() -> None:
    x = randn(1, 6, 1, 8)
    y = Rope(8, 100.0, 0.5)(x)
    still = [2, 3, 6, 7]  # pairs (2, 6) and (3, 7) of (0, 4), (1, 5), (2, 6), (3, 7)
    torch.testing.assert_close(y[..., still], x[..., still])
    assert (y[:, 1:, :, [0, 1, 4, 5]] != x[:, 1:, :, [0, 1, 4, 5]]).all()
    torch.testing.assert_close(Rope(8, 100.0, 0.0)(x), x)


def test_short_conv_equals_conv1d_and_steps_like_it_trains() -> None:
    conv = ShortConv(6, 4).double()
    nn.init.normal_(conv.weight)
    x = randn(2, 11, 6)
    kernel = conv.weight.T[:, None].flip(-1)  # (C, 1, K), oldest tap first
    plain = F.silu(F.conv1d(F.pad(x.mT, (3, 0)), kernel, groups=6).mT)
    torch.testing.assert_close(conv(x), plain)
    state = conv.init_state(2)
    parts = []
    for piece in x.split([1, 1, 5, 4], dim=1):
        y, state = conv.step(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), plain)


def test_bigram_rows_are_one_per_pair_where_they_fit_and_continue_across_steps() -> None:
    embedding = Embedding(5, 4, bigrams=30)
    tokens = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    rows = embedding.rows(tokens)[:, 1]
    assert len(set(rows.tolist())) == 25
    text = torch.tensor([[1, 4, 2, 0, 3]])
    whole = embedding(text)
    parts = torch.cat((embedding(text[:, :2]), embedding(text[:, 2:], text[:, 1])), dim=1)
    assert torch.equal(whole, parts)
    assert not torch.equal(embedding(text)[:, 2:], embedding(text[:, 2:]))
    hashed = Embedding(5, 4, bigrams=7).rows(tokens)
    assert hashed.min() >= 0
    assert hashed.max() < 7
    assert len(set(hashed[:, 1].tolist())) == 7


def test_a_cut_cache_is_continued_in_place_only_where_nobody_else_went_on() -> None:
    first = KVCache().append(randn(1, 2, 10, 3))
    old = first.views()[0].clone()
    longer = first.append(randn(1, 2, 5, 3))
    whole = longer.views()[0].clone()
    cut = longer.cut(12, reclaim=False)
    new = randn(1, 2, 1, 3)
    grown = cut.append(new)  # a copy: the longer one stays
    assert torch.equal(longer.views()[0], whole)
    assert torch.equal(grown.views()[0], torch.cat([whole[:, :, :12], new], 2))
    taken = longer.cut(12, reclaim=True).append(new)
    assert torch.equal(taken.views()[0], grown.views()[0])
    assert not torch.equal(longer.views()[0], whole), "no copy was made"
    assert torch.equal(first.views()[0], old)
    # `longer` is no more the last to have written: what goes on from a cut of it is a copy
    kept = taken.views()[0].clone()
    longer.cut(11, reclaim=True).append(randn(1, 2, 1, 3))
    assert torch.equal(taken.views()[0], kept)


def test_a_cache_is_a_value() -> None:
    first = KVCache().append(randn(1, 2, 60, 3))
    a, b = randn(1, 2, 2, 3, seed=1), randn(1, 2, 9, 3, seed=2)
    with_a, with_b = first.append(a), first.append(b)
    torch.testing.assert_close(with_a.views()[0][:, :, 60:], a)
    torch.testing.assert_close(with_b.views()[0][:, :, 60:], b)
    torch.testing.assert_close(first.views()[0], with_b.views()[0][:, :, :60])
    grown = with_a.append(b)  # past the first buffer's room
    torch.testing.assert_close(grown.views()[0], torch.cat((first.views()[0], a, b), dim=2))
    picked = grown.select(torch.tensor([0, 0]))
    assert picked.views()[0].shape == (2, 2, 71, 3)
