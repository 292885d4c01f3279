"""Selection looks back only, and what is packed is what a mask would give."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.layers.norm import rms_norm
from holo_cli.models.brain_v2.attention import THRESHOLD_SCALE, SelectiveAttention
from holo_cli.models.brain_v2.selection import SLACK, Selected, capacity, selected_counts
from holo_cli.training.optim import Optimizer
from tests.models.brain_v2.parts import awake, config, model, tokens


def part(share: float = 0.3, **given: object) -> SelectiveAttention:
    torch.manual_seed(0)
    made = SelectiveAttention(config(attention_share=share, **given))
    awake(made)
    made.finish_initialisation()
    nn.init.normal_(made.out.weight)
    return made.double()


def inputs(rows: int = 2, length: int = 60, seed: int = 3) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return rms_norm(torch.randn(rows, length, 16, generator=make, dtype=torch.float64))


def by_hand(passes: list[bool], share: float) -> list[int]:
    found: list[int] = []
    for t, passed in enumerate(passes):
        if passed and len(found) < min(t + 1, math.ceil(min(SLACK * share, 1.0) * (t + 1))):
            found.append(t)
    return found


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("odds", [0.02, 0.1, 0.5, 1.0])
def test_counts_in_closed_form_are_those_of_the_rule(share: float, odds: float) -> None:
    make = torch.Generator().manual_seed(0)
    passes = torch.rand(4, 90, generator=make) < odds
    chosen = Selected.of(passes, share)
    for row in range(4):
        places = chosen.position[chosen.row == row].tolist()
        assert places == by_hand(passes[row].tolist(), share)
        assert chosen.count[row] == len(places)
        assert chosen.slot[chosen.row == row].tolist() == list(range(len(places)))
    # in pieces, each going on from the counts of the one before
    before, start, places = torch.zeros(4, dtype=torch.int64), 0, []
    for piece in passes.split([1, 30, 2, 57], dim=1):
        some = Selected.of(piece, share, start, before)
        places += list(zip(some.row.tolist(), some.position.tolist(), strict=True))
        before, start = some.count, start + piece.shape[1]
    assert sorted(places) == list(zip(chosen.row.tolist(), chosen.position.tolist(), strict=True))


def test_room_is_a_prefix_rule() -> None:
    assert [capacity(n, 0.1) for n in (1, 5, 6, 10, 100)] == [1, 1, 2, 2, 20]
    assert capacity(7, 1.0) == 7
    counts = selected_counts(
        torch.ones(1, 200, dtype=torch.bool), 0.1, 0, torch.zeros(1, dtype=torch.int64)
    )
    assert counts[0].tolist() == [capacity(t + 1, 0.1) for t in range(200)]


def test_later_tokens_never_change_the_selection_of_earlier_ones() -> None:
    """The older system took the top tenth of the whole sequence."""
    attention = part(0.2)
    u = inputs(3, 80)
    make = torch.Generator().manual_seed(5)
    whole = attention.selected(u)
    assert 10 < whole.flat.numel() < 200
    for _ in range(40):
        cut = int(torch.randint(1, 80, (), generator=make))
        changed = u.clone()
        changed[:, cut:] = 3.0 * torch.randn(3, 80 - cut, 16, generator=make, dtype=u.dtype)
        again = attention.selected(changed)
        for row in range(3):
            early = [
                s.position[(s.row == row) & (s.position < cut)].tolist() for s in (whole, again)
            ]
            assert early[0] == early[1]


def masked(attention: SelectiveAttention, u: Tensor) -> Tensor:
    """The same with masks over all pairs and nothing packed."""
    rows, length, _ = u.shape
    heads, d = attention.heads, attention.head_width
    qkv = attention.qkv(u).view(rows, length, 3, heads, d)
    q, k = (attention.rope(rms_norm(qkv[:, :, i])).transpose(1, 2) for i in (0, 1))
    v = qkv[:, :, 2].transpose(1, 2)
    assert attention.gain is not None
    q = q * (1.5 * (4 * attention.gain.log_gain).exp())[:, None, None]
    chosen = attention.selected(u)
    taken = torch.zeros(rows * length, dtype=torch.bool)
    taken[chosen.flat] = True
    taken = taken.view(rows, length)
    past = torch.ones(length, length, dtype=torch.bool).tril()
    seen = past & taken[:, None, None, :]
    weights = (q @ k.mT / math.sqrt(d)).masked_fill(~seen, -1e300).softmax(-1)
    y = attention.out((weights @ v).transpose(1, 2).flatten(2))
    strength = attention.margin(u).sigmoid()
    return torch.where(taken[..., None], y * strength[..., None], 0.0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_packing_equals_masking(share: float) -> None:
    attention, u = part(share), inputs(3, 70)
    chosen = attention.selected(u)
    assert len({int(n) for n in chosen.count}) > 1  # rows differ in how many are selected
    torch.testing.assert_close(attention(u)[0], masked(attention, u), rtol=1e-10, atol=1e-10)


def test_tokens_that_are_not_selected_get_nothing_and_rows_may_have_none() -> None:
    attention, u = part(0.1), inputs(2, 40)
    with torch.no_grad():
        u[1] = -attention.scorer / attention.scorer.norm()  # far below the threshold
        out = attention(u)[0]
        assert (out[1] == 0).all()
        assert out[0].abs().sum() > 0
        u[0] = u[1]
        assert (attention(u)[0] == 0).all()
        stepped, state = attention.step(u, attention.init_state(2))
    assert (stepped == 0).all()
    assert state.count.tolist() == [0, 0]
    attention(u)[0].sum().backward()
    assert attention.qkv.weight.grad is not None  # zero, not missing


def test_decoding_keeps_selected_tokens_only() -> None:
    attention, u = part(0.1), inputs(2, 50)
    state = attention.init_state(2)
    with torch.no_grad():
        for t in range(50):
            _, state = attention.step(u[:, t : t + 1], state)
            assert state.keys.shape[2] == capacity(t + 1, 0.1)
    chosen = attention.selected(u)
    assert state.count.tolist() == chosen.count.tolist()
    _, k, v = attention.project(u, chosen)
    for row in range(2):
        mine = chosen.row == row
        torch.testing.assert_close(state.keys[row, :, : mine.sum()], k[mine].transpose(0, 1))
        torch.testing.assert_close(state.values[row, :, : mine.sum()], v[mine].transpose(0, 1))
    full = 2 * 2 * 50 * 16 * 8  # keys and values of all tokens of two rows
    assert sum(t.nbytes for t in state.tensors()) == 0.2 * full + 2 * 8


def test_the_threshold_follows_the_scores_in_training_and_rests_in_evaluation() -> None:
    made = model(attention_every=1, attention_share=0.15, memory="none").float().train()
    attention = made.layers()[0].mixer.attention
    assert attention is not None
    with torch.no_grad():
        attention.threshold.fill_(3.0 / THRESHOLD_SCALE)  # nearly nothing passes
    optimizer = Optimizer(made, TrainingConfig(lr=1e-9, adam_lr=0.01), fast_bf16=False)
    optimizer.set_lr(1.0)
    frozen = [p for p in made.parameters() if p is not attention.threshold]
    values = [p.clone() for p in frozen]
    for seed in range(80):
        aux = made.hidden(tokens(8, 60, seed)).aux
        assert aux["selection"] == 0  # it adds nothing to the loss
        aux["selection"].backward()
        for p in frozen:
            p.grad = None
        optimizer.step()
        made.zero_grad()
    for p, before in zip(frozen, values, strict=True):
        torch.testing.assert_close(p, before)
    measured = made.measures(tokens(16, 60, 99))["selected_1"]
    assert 0.08 < measured < 0.25  # 0 at the beginning, asked for are 0.15
    threshold = attention.threshold.clone()
    made.eval()
    made(tokens(2, 60))
    made.step(tokens(2, 60), made.init_state(2))
    assert torch.equal(attention.threshold, threshold)


def test_the_scorer_learns_through_the_strength() -> None:
    attention, u = part(0.3), inputs()
    attention(u)[0].sum().backward()
    assert attention.scorer.grad is not None
    assert attention.scorer.grad.abs().max() > 0
    assert attention.threshold.grad is None  # it learns by its own term alone


def test_layers_with_attention() -> None:
    made = config(layers=8)
    assert [layer for layer in range(8) if made.has_attention(layer)] == [3, 7]  # every fourth
    assert not config(attention_every=0).has_attention(0)
    assert model(attention_every=0).context_limit is None
    assert model(attention_every=2).context_limit == 64
