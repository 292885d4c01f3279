"""k winners take all: exactly k, by value and boost, in decoding too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.brain_v1.kwta import KWTA, _WinnersSquared, winners
from holo_cli.models.brain_v1.sparsity_2_4 import Sparse24Linear, sparsify_2_4
from tests.models.brain_v1.conftest import make_config, make_model

OPTIONS: list[dict[str, Any]] = [
    {},
    {"two_four": "mlp"},
    {"balance": 0.0},
    {"balance": 0.0, "two_four": "mlp"},
]


def make_kwta(dtype: torch.dtype = torch.float64, **given: Any) -> KWTA:
    torch.manual_seed(1)
    part = KWTA(make_config(**{"sparsity": "kwta", **given}), 0).to(dtype).eval()
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.3))
    return part


def inputs(tokens: int = 23, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(1, tokens, 16, dtype=dtype)


@pytest.mark.parametrize("given", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_exactly_k_units_win(given: dict[str, Any], dtype: torch.dtype) -> None:
    part = make_kwta(**given).to(dtype)
    sent, could = part.unit_outputs(inputs(100, dtype)[0])
    assert part.k == 16  # a quarter of 64
    assert (could.sum(1) == 16).all()
    assert ((sent != 0).sum(1) == 16).all()  # and every winner fires
    relu = make_kwta(**given, activation="relu").to(dtype)
    sent, could = relu.unit_outputs(inputs(100, dtype)[0])
    assert (could.sum(1) == 16).all()
    assert ((sent != 0).sum(1) <= 16).all()
    assert (sent != 0).float().mean() > 0.2  # all but a few winners are above zero


def test_exactly_k_of_equal_values_win() -> None:
    assert winners(torch.zeros(3, 9), 4).shape == (3, 4)
    assert all(len(set(row)) == 4 for row in winners(torch.zeros(3, 9), 4).tolist())


def test_winners_are_the_largest_and_boosting_changes_only_who_wins() -> None:
    part, x = make_kwta(activation="relu"), inputs()[0]
    u = F.linear(x, part.up.weight)
    assert part.bias is not None
    sent, could = part.unit_outputs(x)
    score = u + part.bias
    assert (score.masked_fill(~could, -torch.inf).amin(1) == -torch.inf).all()
    for row, allowed in zip(score, could, strict=True):
        assert row[allowed].min() > row[~allowed].max()
    torch.testing.assert_close(sent, (u.clamp_min(0) ** 2) * could)  # u, not u + b
    torch.testing.assert_close(part(x[None])[0][0], part.scale * sent @ part.down.weight)


def test_units_above_zero_go_first_and_the_others_keep_their_sign() -> None:
    part, x = make_kwta(activity=0.625), inputs(200)[0]  # 40 of 64: often more than are above zero
    u = F.linear(x, part.up.weight)
    sent, could = part.unit_outputs(x)
    above = (u > 0).sum(1)
    assert above.min() < 40 < above.max() + 8
    assert ((could & (u > 0)).sum(1) == above.clamp_max(40)).all()
    torch.testing.assert_close(sent, u * u.abs() * could)
    torch.testing.assert_close(part(x[None])[0][0], part.scale * sent @ part.down.weight)
    # the gradient is that of the formula
    u.requires_grad_()
    found = _WinnersSquared.apply(u, could.nonzero()[:, 1].view(200, 40), True)
    (mine,) = torch.autograd.grad(found.sin().sum(), u)
    (wanted,) = torch.autograd.grad((u * u.abs() * could).sin().sum(), u)
    torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("given", [*OPTIONS, {"activity": 1.0}, {"sparsity": "dense"}])
def test_a_few_tokens_are_decoded_as_many_are(given: dict[str, Any]) -> None:
    part, x = make_kwta(**given), inputs(9)
    together = part(x)[0]
    with torch.no_grad():
        alone = torch.cat([part(x[:, t : t + 1])[0] for t in range(9)], 1)
    torch.testing.assert_close(alone, together)


def test_decoding_skips_the_losers_part_of_the_second_product() -> None:
    part, x = make_kwta(), inputs(1)
    with torch.no_grad():
        expected = part(x)[0]
        _, could = part.unit_outputs(x[0])
        part.down.weight[~could[0]] = float("nan")
        assert torch.equal(part(x)[0], expected)


def test_the_dense_twin_is_the_backbones_mlp() -> None:
    part, x = make_kwta(sparsity="dense"), inputs()
    u = F.linear(x, part.up.weight).clamp_min(0) ** 2
    torch.testing.assert_close(part(x)[0], 0.5 * u @ part.down.weight)  # 0.5: sqrt(16 / 64)


# -- two of four ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exactly_two_of_any_four_are_zero(dim: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    size = torch.stack([torch.randperm(4) for _ in range(16 * 6)]).view(16, 24) + 1.0
    weight = ((size if dim == 1 else size.T) * torch.where(torch.rand(1) > 0, 1, -1)).to(dtype)
    weight = weight * torch.where(torch.rand_like(weight) > 0.5, 1.0, -1.0)
    done = sparsify_2_4(weight, dim)
    groups = (done if dim == 1 else done.T).reshape(-1, 4)
    assert ((groups != 0).sum(1) == 2).all()
    before = (weight if dim == 1 else weight.T).reshape(-1, 4)
    for a, b in zip(groups, before, strict=True):
        assert set(a.nonzero()[:, 0].tolist()) == set(b.abs().topk(2).indices.tolist())
        assert (a * b >= 0).all()


def test_random_weights_have_two_of_four_everywhere_in_the_model() -> None:
    model = make_model(two_four="all")
    for block in model.brain_blocks():
        assert isinstance(block.mixer.qkv, Sparse24Linear)
        used = [block.mixer.qkv.effective(), block.mixer.out.effective()]
        assert hasattr(block.mlp, "weights")
        up, down = block.mlp.weights()
        used += [up, down.mT]
        for weight in used:
            assert ((weight.reshape(-1, 4) != 0).sum(1) == 2).all()


def test_the_threshold_is_soft_and_the_gradient_passes() -> None:
    weight = torch.tensor([[3.0, -1.0, 0.5, -2.0]], requires_grad=True)
    done = sparsify_2_4(weight)
    torch.testing.assert_close(done, 1.4838 * torch.tensor([[2.0, 0.0, 0.0, -1.0]]))
    (done * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]]
    # near the border a weight is near zero on both sides: nothing jumps
    inside = sparsify_2_4(torch.tensor([[3.0, 1.01, 1.0, 0.5]]))
    outside = sparsify_2_4(torch.tensor([[3.0, 1.0, 1.01, 0.5]]))
    assert (inside - outside).abs().max() < 0.02
