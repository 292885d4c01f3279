"""Columns: what is kept is what is computed, whose choice it is, and how even it becomes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.layers import grouped as grouped_module
from holo_cli.layers.grouped import SortedPairs, grouped, rows_by_matrices
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.kwta import balance_term
from tests.models.brain_v1.conftest import SHAPE, make_config, make_tokens

OPTIONS: list[dict[str, Any]] = [
    {},
    {"sparsity": "self"},
    {"gate": "sigmoid", "columns_kept": 3, "shared_columns": 1},
    {"activity": 0.375},
    {"sparsity": "self", "activity": 0.375, "selection_inputs": 1.0, "two_four": "mlp"},
    {"sparsity": "both", "columns_kept": 4},
    {"sparsity": "self", "columns_kept": 4},
    {"two_four": "mlp"},
    {"balance": 0.0},
    {"activity": 1.0},
    {"activation": "relu"},
]


def make_columns(dtype: torch.dtype = torch.float64, **given: Any) -> Columns:
    torch.manual_seed(1)
    part = Columns(make_config(**given), 0).to(dtype).eval()
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.3))
    return part


def inputs(tokens: int = 23, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(1, tokens, SHAPE["width"], dtype=dtype)


def with_gradients(part: Columns, x: Tensor) -> list[Tensor]:
    """Output, and the gradients of everything."""
    x = x.clone().requires_grad_()
    part.zero_grad()
    y = part(x)[0]
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in part.parameters() if p.grad is not None)]


@pytest.mark.parametrize("given", OPTIONS)
def test_computing_the_kept_columns_is_masking_the_others(given: dict[str, Any]) -> None:
    part = make_columns(**given)
    routed = with_gradients(part, inputs())
    part.masked = True
    masked = with_gradients(part, inputs())
    assert len(routed) == len(masked)
    for a, b in zip(routed, masked, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("given", OPTIONS)
def test_one_token_is_decoded_as_it_is_trained(given: dict[str, Any]) -> None:
    part, x = make_columns(**given), inputs(5)
    together = part(x)[0]
    with torch.no_grad():
        alone = torch.cat([part(x[:, t : t + 1])[0] for t in range(5)], 1)
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("sparsity", ["self", "columns"])
def test_decoding_touches_kept_columns_only(sparsity: str) -> None:
    """All other columns' weights may be anything at all, but for what the choice reads."""
    part, x = make_columns(sparsity=sparsity), inputs(1)
    reads = part.reads if sparsity == "self" else 0
    assert reads in (0, 4)
    with torch.no_grad():
        expected = part(x)[0]
        chosen = part.route(x[0])[1][0].tolist()
        for n in set(range(part.columns)) - set(chosen):
            column = slice(n * part.units, (n + 1) * part.units)
            part.up.weight[column, reads:] = float("nan")
            part.down.weight[column] = float("nan")
        assert torch.equal(part(x)[0], expected)


def test_the_loudest_columns_choose_themselves() -> None:
    """By the first inputs alone, and by what the units compute when they are all read."""
    part, x = make_columns(sparsity="self", balance=0.0), inputs(50)[0]
    read = x[:, :4] @ part.up.weight[:, :4].T
    loud = read.unflatten(1, (8, -1)).square().sum(2)
    chosen = part.route(x)[1]
    assert torch.equal(chosen.sort(1).values, loud.topk(2, dim=1).indices.sort(1).values)
    other = torch.cat([x[:, :4], torch.randn_like(x[:, 4:])], 1)
    assert torch.equal(part.route(other)[1], chosen)
    whole = make_columns(sparsity="self", balance=0.0, selection_inputs=1.0)
    everything = F.linear(x, whole.up.weight).unflatten(1, (8, -1)).square().mean(2).sqrt()
    torch.testing.assert_close(whole.loudness(x), everything)


def test_a_choice_of_its_own_has_no_parameters_and_no_gradient() -> None:
    part, x = make_columns(sparsity="self"), inputs(1)
    assert {name for name, _ in part.named_parameters()} == {"up.weight", "down.weight", "bias"}
    part(x.requires_grad_())[0].sum().backward()
    assert part.up.weight.grad is not None
    quiet = set(range(8)) - set(part.route(x[0])[1][0].tolist())
    assert len(quiet) == 6
    assert not part.up.weight.grad.view(8, 8, -1)[sorted(quiet)].any()


@pytest.mark.parametrize("given", OPTIONS)
def test_measured_activity_is_the_configured_one(given: dict[str, Any]) -> None:
    part = make_columns(**given)
    sent, could = part.unit_outputs(inputs(200)[0])
    per_token = could.sum(1)
    assert (per_token == part.k).all()
    assert part.k == round(given.get("activity", SHAPE["activity"]) * 64) or given.get(
        "columns_kept"
    )
    assert (sent[~could] == 0).all()
    if given.get("activation") == "relu":
        assert 0.2 * could.sum() < (sent != 0).sum() < could.sum()
    else:
        assert ((sent != 0) == could).all()  # what may fire does
    # what is measured is what the layer computes
    y = (sent @ part.weights()[1].flatten(0, 1)).view(1, 200, -1)
    torch.testing.assert_close(y, part(inputs(200))[0])


@pytest.mark.parametrize("sparsity", ["self", "columns"])
def test_a_shared_column_is_kept_for_every_token(sparsity: str) -> None:
    part = make_columns(columns_kept=3, shared_columns=1, sparsity=sparsity)
    chosen = part.route(inputs(100)[0])[1]
    assert (chosen == 0).any(1).all()
    assert len(chosen.unique()) > 3


def test_the_bias_balances_the_choice_and_touches_nothing_else() -> None:
    part = make_columns(sparsity="columns")
    part.train()
    x = inputs(400)
    assert part.router is not None
    with torch.no_grad():
        part.router.weight[0] += 5 * x.mean((0, 1)) + 1.0  # one column much in favour
    optimizer = torch.optim.AdamW([part.bias], lr=0.05, weight_decay=0.0)

    def unevenness() -> float:
        counts = torch.bincount(part.route(x[0])[1].flatten(), minlength=8).double()
        return ((counts / counts.mean() - 1) ** 2).mean().item()

    before = unevenness()
    for _ in range(60):
        optimizer.zero_grad()
        aux = part(x)[1]
        assert aux["balance"] == 0
        aux["balance"].backward()
        optimizer.step()
    assert unevenness() < 0.3 * before
    value, chosen = part.route(x[0])
    assert value is not None
    assert torch.equal(value, part.router(x[0]).gather(1, chosen))
    part.zero_grad()
    part(x)[0].sum().backward()
    assert part.bias is not None
    assert part.bias.grad is None


def test_evenness_pulls_down_what_is_chosen_too_often() -> None:
    bias = torch.zeros(4, requires_grad=True)
    balance_term(bias, torch.tensor([[0, 1], [0, 2], [0, 1], [0, 2]])).backward()
    assert bias.grad is not None
    assert bias.grad[0] > 0 > bias.grad[3]
    assert bias.grad.sum() == 0


# -- sorting and grouped products -----------------------------------------------------------------


def test_there_and_back_again() -> None:
    chosen = torch.tensor([[2, 0], [1, 2], [2, 1], [0, 2]])
    pairs = SortedPairs(chosen, 4)
    assert pairs.ends.tolist() == [2, 4, 8, 8]  # the last group is empty
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    spread = pairs.spread(x)
    flat = chosen.flatten()
    assert torch.equal(spread, x[flat.argsort(stable=True) // 2])
    torch.testing.assert_close(pairs.gather(spread), 2 * x)
    assert torch.equal(pairs.by_token(pairs.by_place(chosen)), chosen)
    assert torch.autograd.gradcheck(pairs.spread, (x,))
    assert torch.autograd.gradcheck(pairs.gather, (spread.detach().requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_products_and_the_loop_agree(
    dtype: torch.dtype, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    ends = torch.tensor([3, 3, 10, 12], dtype=torch.int32)
    x = torch.randn(12, 16, requires_grad=True)
    w = torch.randn(4, 8, 16) if transposed else torch.randn(4, 16, 8)
    w.requires_grad_()

    def run() -> list[Tensor]:
        x.grad = w.grad = None
        y = grouped(x.to(dtype), (w.mT if transposed else w).to(dtype), ends)
        y.float().square().sum().backward()
        assert x.grad is not None
        assert w.grad is not None
        return [y.detach().float(), x.grad.clone(), w.grad.clone()]

    calls = []
    real = F.grouped_mm
    monkeypatch.setattr(F, "grouped_mm", lambda *a, **k: calls.append(1) or real(*a, **k))
    fast = run()
    assert len(calls) == 3, "forward, and both gradients"
    monkeypatch.setattr(grouped_module, "GROUPED_DTYPES", ())
    slow = run()
    assert len(calls) == 3
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.05 if dtype == torch.bfloat16 else 1e-4)
    assert (slow[2][1] == 0).all(), "a group without rows"


def test_grouped_gradients() -> None:
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: grouped(a, b, ends), (x, w))
    with torch.no_grad():
        assert torch.equal(rows_by_matrices(x, w, ends)[:2], x[:2] @ w[0])


def test_training_makes_no_tensor_of_all_units() -> None:
    """5 % computed is 5 % kept in memory: no activation has a place for every unit of a token."""
    part = make_columns(activity=0.125).train()
    seen: list[int] = []
    x = inputs(100).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: seen.append(t.numel()) or t, lambda t: t
    ):
        part(x)
    assert max(seen) <= max(100 * SHAPE["width"], part.up.weight.numel())
    assert max(seen) < 100 * 64


def test_rows_are_routed_by_themselves() -> None:
    part, x = make_columns(), inputs(30)
    changed = x.clone()
    changed[:, 10:] = torch.randn_like(changed[:, 10:])
    assert torch.equal(part.route(x[0])[1][:10], part.route(changed[0])[1][:10])
    assert make_tokens().shape == (2, 21)
