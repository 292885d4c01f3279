"""Category experts: who is chosen, who pays, and what keeps them in balance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic import reference
from holo_cli.models.holographic.experts import Experts
from holo_cli.models.holographic.model import Model
from tests.models.holographic.parts import awake, config, randn


def make_experts(**overrides: Any) -> Experts:
    part: Experts = awake(Experts(config(**{"experts": 3, **overrides})))
    return part


@pytest.mark.parametrize(("experts", "top"), [(3, 1), (4, 2), (5, 5)])
def test_sorting_tokens_is_the_loop_over_experts(experts: int, top: int) -> None:
    part = make_experts(experts=experts, experts_top_k=top)
    x = randn(2, 21, 16)
    expected = torch.stack(
        [torch.stack([reference.expert_output(part, token) for token in row]) for row in x]
    )
    torch.testing.assert_close(part(x)[0], expected)


def test_an_expert_without_tokens_is_no_trouble() -> None:
    part = make_experts(experts=3)
    assert part.bias is not None
    part.bias.data = torch.tensor([0.0, 0.0, -9.0], dtype=torch.float64)
    out, aux = part(randn(1, 8, 16))
    assert part.route(randn(8, 16))[1].max() < 2
    (out.sum() + aux["balance"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


def test_the_gate_of_the_one_expert_chosen_teaches_the_router() -> None:
    """Renormalized, a single gate would be 1 and the router would get no gradient."""
    part = make_experts(balance=0.0)
    part(randn(1, 8, 16))[0].square().sum().backward()
    assert part.category.weight.grad is not None
    assert part.category.weight.grad.abs().max() > 1e-4


def test_the_balance_loss_is_least_at_balance_and_moves_the_router_there() -> None:
    part = make_experts(experts=3, balance=1.0)
    even = torch.full((9, 3), 1 / 3, dtype=torch.float64)
    chosen = torch.arange(9)[:, None] % 3
    least = part._balance_loss(even, chosen).item()
    assert least == pytest.approx(1.0)
    for shift in (0.2, 0.6):
        uneven = even + shift * torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
        lopsided = torch.where(torch.arange(9)[:, None] < 9 * (1 / 3 + shift), 0, chosen)
        assert part._balance_loss(uneven, lopsided).item() > least
    # by its gradient alone the router evens out what it gives
    torch.nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    x = randn(1, 600, 16) + 3.0 * randn(16, seed=5)
    optimizer = torch.optim.SGD([part.category.weight], lr=0.05)

    def largest() -> float:
        affinity, _ = part.route(x[0])
        return affinity.mean(0).max().item()

    before = largest()
    for _ in range(200):
        optimizer.zero_grad()
        part(x)[1]["balance"].backward()
        optimizer.step()
    assert before > 0.6
    assert largest() < 0.4


def test_the_bias_changes_who_is_chosen_and_no_gate() -> None:
    part = make_experts(experts=3)
    x = randn(40, 16)
    affinity, chosen = part.route(x)
    assert part.bias is not None
    part.bias.data = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)
    pushed, moved = part.route(x)
    assert torch.equal(pushed, affinity)
    assert not torch.equal(moved, chosen)
    assert (moved == 1).all()


def test_the_bias_alone_balances_and_costs_nothing() -> None:
    part = make_experts(experts=3, balance=0.01)
    assert part.bias is not None
    torch.nn.init.zeros_(part.bias)
    x = randn(1, 600, 16) + 0.6 * randn(16, seed=5)

    def shares() -> Tensor:
        return torch.bincount(part.route(x[0])[1].flatten(), minlength=3) / 600

    before = shares()
    value = part(x)[1]["balance"]
    affinity, chosen = part.route(x[0])
    given = torch.bincount(chosen.flatten(), minlength=3) / 600
    torch.testing.assert_close(value, 0.01 * 3 * (given * affinity.mean(0)).sum())
    optimizer = torch.optim.Adam([part.bias], lr=0.003)
    for _ in range(300):
        optimizer.zero_grad()
        part(x)[1]["balance"].backward()
        optimizer.step()
    assert before.max() > 0.45
    assert shares().max() < 0.36


def test_a_token_pays_for_the_experts_it_meets() -> None:
    one, three = Model(config(experts=1)), Model(config(experts=3))
    mlp = 2 * 2 * 16 * 64  # both layers
    assert three.describe().parameters - one.describe().parameters == 2 * mlp + 2 * (3 * 16 + 3)
    grown = three.describe().active_parameters - one.describe().active_parameters
    assert grown == 2 * (3 * 16 + 3)
