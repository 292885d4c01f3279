"""Dendrites, the largest weights, and language adapters."""

from __future__ import annotations

import math

import pytest
import torch

from holo_cli.models.brain_v1.adapters import token_languages
from holo_cli.models.brain_v1.attention import BrainAttention, causal_weights, keep_largest
from tests.models.brain_v1.conftest import make_config, make_model, make_tokens


def test_gates_start_near_one_and_have_a_gradient() -> None:
    torch.manual_seed(0)
    model = make_model(awake=False, dendrites=4)
    mixer = model.brain_blocks()[0].mixer
    context = torch.randn(2, 50, 16, dtype=torch.float64)
    context = context / context.square().mean(-1, keepdim=True).sqrt()
    gate = mixer._gate(context)
    assert gate.shape == (2, 2, 50, 1)
    assert 0 < (gate - 1).abs().mean() < 0.1
    assert (gate - 1).abs().max() < 0.3
    assert mixer.dendrites is not None
    gate.sum().backward()
    assert (mixer.dendrites.weight.grad.abs().sum(1) > 0).any()  # type: ignore[union-attr]


def test_the_strongest_dendrite_decides_whatever_its_sign() -> None:
    mixer = BrainAttention(make_config(dendrites=3)).double()
    assert mixer.dendrites is not None
    with torch.no_grad():
        mixer.dendrites.weight.zero_()
        mixer.dendrites.weight[:3, 0] = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    context = torch.zeros(1, 1, 16, dtype=torch.float64)
    context[..., 0] = 1.0
    gate = mixer._gate(context).flatten()
    assert gate[0].item() == pytest.approx(2 / (1 + math.exp(2.0)))
    assert gate[1].item() == 1.0


def test_the_context_of_a_gate_is_the_mean_of_the_past() -> None:
    """Far tokens move it too, and its decoding state does not grow."""
    model, tokens = make_model(dendrites=2), make_tokens(1, 30)
    state = model.init_state(1)
    sizes = []
    for piece in tokens.split(10, dim=1):
        _, state = model.step(piece, state)
        sizes.append(state.mixers[0].total.numel())
    assert sizes == [16, 16, 16]
    mixer = model.brain_blocks()[0].mixer
    x = torch.randn(1, 12, 16, dtype=torch.float64)
    moved = x.clone()
    moved[:, 0] += 1.0
    q, k, v = mixer._project(x, 0)
    plain = mixer._join(mixer._attend(q, k, v))
    assert not torch.allclose(mixer(x)[0], plain)
    means = torch.stack([x[0, : t + 1].mean(0) for t in range(12)])[None]
    gated = mixer._join(mixer._attend(q, k, v) * mixer._gate(means))
    torch.testing.assert_close(mixer(x)[0], gated)


def test_the_largest_weights_are_kept_and_sum_to_one() -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(2, 3, 20, 4, dtype=torch.float64) for _ in range(2))
    weights = causal_weights(q, k)
    kept = keep_largest(weights, 0.1)
    torch.testing.assert_close(kept.sum(-1), torch.ones_like(kept[..., 0]))
    for t in range(20):
        count = math.ceil(round((t + 1) * 0.1, 6))
        assert ((kept[..., t, :] > 0).sum(-1) == count).all()
        floor = weights[..., t, :].topk(count).values[..., -1]
        assert (
            weights[..., t, :][kept[..., t, :] > 0].view(6, -1).amin(1) == floor.flatten()
        ).all()
    torch.testing.assert_close(keep_largest(weights, 1.0), weights)
    torch.testing.assert_close(keep_largest(weights[..., -3:, :], 0.1), kept[..., -3:, :])


def test_training_sees_all_weights_and_evaluation_the_largest() -> None:
    model, tokens = make_model(attention_top=0.2), make_tokens()
    assert not torch.allclose(model(tokens), model.train()(tokens))
    figures = model.eval().measures(tokens)
    assert 0.2 < figures["attention_kept"] < 1.0


# -- adapters -------------------------------------------------------------------------------------


def test_the_last_marker_says_the_language() -> None:
    tokens = torch.tensor([[5, 3, 5, 7, 7, 5, 3, 5], [5, 5, 5, 5, 7, 5, 5, 5]])
    spoken = token_languages(tokens, torch.tensor([3, 7]), torch.tensor([1, 0]))
    assert spoken.tolist() == [[1, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]
    missing = token_languages(tokens, torch.tensor([-1, 7]), torch.tensor([0, 0]))
    assert missing[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_each_language_passes_its_own_adapter() -> None:
    model = make_model(adapters=4, language_tokens=(3, 7))
    korean, english = make_tokens(1), make_tokens(1)
    tokens = make_tokens(1).clamp_min(8)
    korean, english = tokens.clone(), tokens.clone()
    korean[0, 5], english[0, 5] = 3, 7
    adapters = model.brain_blocks()[-1].adapters
    assert adapters is not None
    before = [model(t) for t in (korean, english)]
    with torch.no_grad():  # the Korean one, of the first rows
        adapters.up.weight[:16] += 1.0
    after = [model(t) for t in (korean, english)]
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[0][:, :5], before[0][:, :5])  # the default is English
    same = torch.isclose(after[0][:, 5:], before[0][:, 5:]).all(-1)  # where its ReLU is silent
    assert same.double().mean() < 0.3


def test_decoding_remembers_the_language() -> None:
    model = make_model(adapters=4, language_tokens=(3, 7))
    _, state = model.step(torch.tensor([[3, 9], [7, 9]]), model.init_state(2))
    assert state.language.tolist() == [0, 1]
    _, state = model.step(torch.tensor([[10], [11]]), state)
    assert state.language.tolist() == [0, 1]
    assert state.select(torch.tensor([1, 1])).language.tolist() == [1, 1]


def test_without_markers_the_config_says_the_language() -> None:
    tokens = make_tokens()
    outputs = [make_model(adapters=4, language=code)(tokens) for code in ("ko", "en")]
    assert not torch.allclose(outputs[0], outputs[1])
