"""Leaving early: what leaves, what stays the same, what is really skipped, what is trained."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.layers.head import Head
from holo_cli.layers.norm import rms_norm
from holo_cli.models.brain_v1 import exits
from holo_cli.models.brain_v1.exit_gates import ExitGates
from holo_cli.models.brain_v1.exits import confidence, exit_layers, exit_weight, keep_probability
from holo_cli.models.brain_v1.model import Model
from tests.models.brain_v1.conftest import VOCAB, make_config, make_model, make_tokens


def between(model: Model, tokens: Tensor) -> float:
    """A threshold that about half of the tokens reach after the first layer."""
    model.exit_threshold = 2.0
    x = rms_norm(model.embedding(tokens))
    sure = confidence(model.head(rms_norm(model.blocks[0](x)[0])), model.config.exit_confidence)
    ordered = sure.flatten().sort().values
    # between two tokens' values: at one of them rounding would decide
    return ordered[len(ordered) // 2 - 1 :][:2].mean().item()


def decode(model: Model, tokens: Tensor, first: int) -> tuple[Tensor, Any]:
    logits, state = model.step(tokens[:, :first], model.init_state(len(tokens)))
    parts = [logits]
    for t in range(first, tokens.shape[1]):
        logits, state = model.step(tokens[:, t : t + 1], state)
        parts.append(logits)
    return torch.cat(parts, 1), state


@pytest.mark.parametrize("kind", ["top1", "margin", "entropy"])
def test_confidence_is_between_zero_and_one(kind: str) -> None:
    logits = torch.randn(50, VOCAB, dtype=torch.float64) * torch.logspace(-2, 2, 50)[:, None]
    sure = confidence(logits, kind)
    assert ((sure >= 0) & (sure <= 1)).all()
    certain = torch.full((1, VOCAB), -1e4)
    certain[0, 3] = 0.0
    assert confidence(certain, kind).item() == pytest.approx(1.0)
    even = confidence(torch.zeros(1, VOCAB, dtype=torch.float64), kind).item()
    assert even == pytest.approx(1 / VOCAB if kind == "top1" else 0.0, abs=1e-12)
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    expected = {"top1": 0.7, "margin": 0.5, "entropy": 1 + (p * p.log()).sum().item() / math.log(3)}
    assert confidence(p.log(), kind).item() == pytest.approx(expected[kind])


def test_a_threshold_above_one_is_the_full_model() -> None:
    model, tokens = make_model(), make_tokens()
    full = model(tokens)
    for threshold in (1.0001, 2.0, 50.0):
        model.exit_threshold = threshold
        assert torch.equal(model(tokens), full)
        assert (model.depths(tokens) == 3).all()
        _, state = decode(model, tokens, 5)
        assert (state.passed == 3 * tokens.shape[1]).all()


@pytest.mark.parametrize("kind", ["top1", "margin", "entropy"])
def test_lower_thresholds_let_more_leave(kind: str) -> None:
    model, tokens = make_model(exit_confidence=kind), make_tokens()
    middle = between(model, tokens)
    depth = []
    for threshold in (1e-9, middle, 0.999):
        model.exit_threshold = threshold
        depth.append(model.depths(tokens).double().mean().item())
    assert depth[0] == 1.0
    assert depth[0] < depth[1] < depth[2] == 3.0


def test_layers_are_left_where_they_may_be() -> None:
    assert exit_layers(make_config(layers=8)) == [0, 1, 2, 3, 4, 5, 6]
    assert exit_layers(make_config(layers=8, exit_from=3, exit_every=2)) == [3, 5]
    model, tokens = make_model(layers=5, exit_from=2, exit_every=2), make_tokens()
    model.exit_threshold = 1e-9
    assert (model.depths(tokens) == 2).all()


@pytest.mark.parametrize("given", [{}, {"dendrites": 2, "conv": 4}])
def test_decoding_leaves_where_evaluation_does(given: dict[str, Any]) -> None:
    model, tokens = make_model(**given), make_tokens()
    model.exit_threshold = between(model, tokens)
    logits, state = decode(model, tokens, 6)
    torch.testing.assert_close(logits, model(tokens), rtol=0, atol=1e-9)
    depths = model.depths(tokens)
    assert 1 < depths.double().mean() < 3
    assert torch.equal(state.passed, depths.sum(1))


def test_training_never_leaves() -> None:
    model, tokens = make_model(), make_tokens()
    full = model(tokens)
    model.exit_threshold = 1e-9
    assert not torch.equal(model(tokens), full)
    assert torch.equal(model.train()(tokens), full)


def test_what_is_left_is_not_computed_but_keys_and_values_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tokens = make_model(dendrites=2, conv=4), make_tokens(1)
    _, state = model.step(tokens[:, :8], model.init_state(1))
    model.exit_threshold = 1e-9
    worked: list[int] = []
    for layer, block in enumerate(model.brain_blocks()):
        block.mlp.register_forward_hook(lambda *_, layer=layer: worked.append(layer))
    _, after = model.step(tokens[:, 8:9], state)
    assert worked == [0]
    assert all(m.past.length == 9 for m in after.mixers)
    # and they are those that a layer makes of the stream as it was left
    x = rms_norm(model.embedding(tokens[:, 8:9], state.last))
    x, _, _, _ = model.brain_blocks()[0].step(x, state.mixers[0], state.windows[0])
    _, _, whole, window = model.brain_blocks()[1].step(x, state.mixers[1], state.windows[1])
    for kept, made in zip(after.mixers[1].tensors(), whole.tensors(), strict=True):
        torch.testing.assert_close(kept, made)
    torch.testing.assert_close(after.windows[1], window)


def test_earlier_layers_learn_to_predict() -> None:
    """The extra loss of a pass is the drawn layer's cross-entropy, the last position left out."""
    model, tokens = make_model(exit_loss=0.5), make_tokens()
    model.train()
    x = rms_norm(model.embedding(tokens))
    expected = []
    for layer, block in enumerate(model.brain_blocks()[:-1]):
        x = block(x)[0]
        logits = model.head(rms_norm(x))[:, :-1].flatten(0, 1)
        nats = F.cross_entropy(logits, tokens[:, 1:].flatten())
        expected.append(0.5 * exit_weight([0, 1], layer) * nats.item())
    drawn = [model.hidden(tokens).aux["exit"].item() for _ in range(20)]
    assert {round(d, 9) for d in drawn} == {round(e, 9) for e in expected}
    model.hidden(tokens).aux["exit"].backward()
    assert model.head.weight.grad is not None
    assert "exit" not in model.eval().hidden(tokens).aux
    weights = [exit_weight([1, 3, 5], n) for n in (1, 3, 5)]  # after 2, 4 and 6 layers
    assert weights == pytest.approx([0.5, 1.0, 1.5])


def test_the_drawn_layer_is_part_of_the_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = make_model(exit_loss=0.5).train(), make_tokens()
    state = torch.get_rng_state()
    first = [model.hidden(tokens).aux["exit"].item() for _ in range(6)]
    torch.set_rng_state(state)
    assert [model.hidden(tokens).aux["exit"].item() for _ in range(6)] == first
    assert exits.NO_TARGET == -100


def test_later_layers_are_left_out_more_often() -> None:
    config = make_config(layers=5, layer_dropout=0.4)
    keep = [keep_probability(config, n) for n in range(5)]
    assert keep[0] == 1.0
    assert keep[-1] == pytest.approx(0.6)
    assert keep == sorted(keep, reverse=True)
    assert 1 - keep[2] < 0.5 * (1 - keep[-1]), "more than evenly towards the end"
    model = make_model(layers=5, layer_dropout=0.4).train()
    block, x = model.brain_blocks()[-1], torch.randn(4000, 1, 16, dtype=torch.float64)
    y = block(x)[0]
    left_out = (y == x).all(-1).double().mean().item()
    assert left_out == pytest.approx(0.4, abs=0.03)
    kept = (y != x).any(-1)[:, 0]
    whole = block.eval()(x)[0] - x
    torch.testing.assert_close((y - x)[kept], whole[kept] / 0.6)  # so that the mean is the whole


# -- gates ----------------------------------------------------------------------------------------


def test_a_gate_learns_the_mean_cost_of_leaving() -> None:
    """Two kinds of streams, whose costs differ: the gate tells them apart, in nats."""
    torch.manual_seed(0)
    head = Head(torch.randn(VOCAB, 16, dtype=torch.float64) / 2, 0.0)
    gates = ExitGates(2, 16).double()
    last = torch.randn(8, 32, 16, dtype=torch.float64)
    last[:4, :, 0], last[4:, :, 0] = 6.0, -6.0  # what the gate can see
    x = last.clone()
    x[4:, :, 1:] = torch.randn(4, 32, 15, dtype=torch.float64)  # left too early
    optimizer = torch.optim.Adam(gates.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        gates.loss(1, x, last, head).backward()
        optimizer.step()
    p, q = (head(rms_norm(s)).log_softmax(-1) for s in (last, x))
    cost = (p.exp() * (p - q)).sum(-1)
    for rows in (slice(0, 4), slice(4, 8)):
        found = gates.log_cost(1, x[rows]).exp().mean().item()
        assert found == pytest.approx(cost[rows].mean().item(), rel=0.1, abs=0.01)
    sure = gates.confidence(1, x)
    assert sure[:4].min() > sure[4:].max()
    assert (gates.up[0] == 0).all(), "the other gate learns nothing"


def test_gates_are_trained_beside_the_model_and_do_not_move_it() -> None:
    given: dict[str, Any] = {"layers": 5, "exit_loss": 0.5, "exit_weights": "even", "exit_every": 2}
    torch.manual_seed(0)
    model = make_model(exit_confidence="learned", **given).train()
    aux = model.hidden(make_tokens()).aux
    aux["exit_gate"].backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {"exit_gates.down", "exit_gates.up", "exit_gates.bias"}
    assert "exit_gate" not in model.eval().hidden(make_tokens()).aux


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "model.exit_loss is 0"),
        ({"exit_loss": 0.3, "growth": (2,)}, "does not go with model.growth"),
        ({"exit_loss": 0.3, "exit_every": 3}, "after layer 3 of 3"),
    ],
)
def test_gates_where_they_cannot_be(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_config(layers=3, exit_confidence="learned", **given)
