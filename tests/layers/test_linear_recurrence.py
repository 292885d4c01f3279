"""The chunked linear recurrence is the recurrence: values, gradients, extreme decays, decoding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from holo_cli.layers import linear_recurrence as module
from holo_cli.layers.decayed_products import channel_products, scalar_products
from holo_cli.layers.linear_recurrence import (
    linear_recurrence,
    linear_recurrence_step,
    naive_linear_recurrence,
)
from holo_cli.layers.unit_lower import solve_unit_lower

B, H, K, V = 2, 2, 6, 4
FORMS = ["gla", "delta", "general"]


def inputs(
    form: str,
    length: int,
    decay: float,
    *,
    scalar: bool = False,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor | None]:
    """q, k, v, log decay, b, a, state; log decays between 0 and -decay, most of them near 0."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    q, v, state = normal(B, H, length, K), normal(B, H, length, V), normal(B, H, K, V)
    k = torch.nn.functional.normalize(normal(B, H, length, K), dim=-1)
    log_decay = -decay * uniform(B, H, length, 1 if scalar else K) ** 4
    b = a = None
    if form == "delta":
        b = uniform(B, H, length, K) * k
    if form == "general":
        b, a, k = k, -uniform(B, H, length, K) * k, normal(B, H, length, K)
    given = (q, k, v, log_decay, b, a, state)
    return [x.to(dtype).requires_grad_() if x is not None else None for x in given]


def with_gradients(form: object, given: list[Tensor | None]) -> list[Tensor]:
    out, state = form(*given)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in (out, state)]
    loss = (out * weights[0]).sum() + (state * weights[1]).sum()
    return [out, state, *torch.autograd.grad(loss, [x for x in given if x is not None])]


@pytest.mark.parametrize("scalar", [False, True], ids=["per-channel", "per-head"])
@pytest.mark.parametrize("form", FORMS)
def test_chunked_and_naive_forms_agree(
    form: str, scalar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For lengths around a chunk, and decays from almost none to a factor of exp(-300) a step."""
    monkeypatch.setattr(module, "CHUNK", 8)
    for length, decay in ((1, 1.0), (3, 0.1), (8, 3.0), (21, 0.1), (21, 300.0)):
        given = inputs(form, length, decay, scalar=scalar)
        fast = with_gradients(linear_recurrence, given)
        slow = with_gradients(naive_linear_recurrence, given)
        for x, y in zip(fast, slow, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_strong_decays_are_exact_in_float32(form: str) -> None:
    """A whole chunk fades by exp(-2000) in some channels: a form that splits exp(G_t - G_s) into
    exp(G_t) and exp(-G_s) would overflow."""
    exact = inputs(form, 64, 300.0)
    single = inputs(form, 64, 300.0, dtype=torch.float32)
    assert exact[3] is not None
    assert exact[3].detach().sum(2).min() < -2000
    for x, y in zip(
        with_gradients(linear_recurrence, single),
        with_gradients(naive_linear_recurrence, exact),
        strict=True,
    ):
        assert x.isfinite().all()
        torch.testing.assert_close(x.double(), y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_decoding_steps_are_the_recurrence(form: str) -> None:
    given = inputs(form, 11, 3.0)
    with torch.no_grad():
        out, last = naive_linear_recurrence(*given)  # type: ignore[arg-type]
        *rows, state = given
        parts = []
        for t in range(11):
            one = [x[:, :, t : t + 1] if x is not None else None for x in rows]
            part, state = linear_recurrence_step(*one, state)  # type: ignore[arg-type]
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=2), out)
    torch.testing.assert_close(state, last)


def rows(length: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(3, length, width, generator=generator).double() for _ in range(4)]
    return made[:2], made[2:]


def test_channel_products_with_one_decay_are_the_scalar_ones() -> None:
    lefts, rights = rows(16, 5)
    total = -torch.rand(3, 16, 1, generator=torch.Generator().manual_seed(1)).double().cumsum(1)
    wide = channel_products(lefts, rights, total.expand(-1, -1, 5).contiguous())
    for x, y in zip(wide, scalar_products(lefts, rights, total), strict=True):
        torch.testing.assert_close(x, y)


def test_channel_products_and_the_solve_pass_gradcheck() -> None:
    lefts, rights = rows(4, 2)
    total = -torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1)).double().cumsum(1)
    given = [x.requires_grad_() for x in (total, *lefts, *rights)]
    assert torch.autograd.gradcheck(lambda g, *x: channel_products(x[:2], x[2:], g), given)
    below = torch.randn(2, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(solve_unit_lower, (below, lefts[0][:2].detach()))


def test_the_solve_is_a_triangular_solve() -> None:
    generator = torch.Generator().manual_seed(0)
    below = torch.randn(3, 16, 16, generator=generator).double()
    right = torch.randn(3, 16, 5, generator=generator).double()
    expected = torch.linalg.solve_triangular(below, right, upper=False, unitriangular=True)
    torch.testing.assert_close(solve_unit_lower(below, right), expected)


def test_a_second_value_replaces_the_first_only_with_the_delta_rule() -> None:
    k = torch.zeros(1, 1, 2, K, dtype=torch.float64)
    k[..., 0] = 1.0
    v = torch.tensor([[2.0, 3.0], [5.0, 7.0]], dtype=torch.float64)[None, None]
    never = torch.zeros(1, 1, 2, 1, dtype=torch.float64)
    replaced, _ = linear_recurrence(k, k, v, never, k)
    added, _ = linear_recurrence(k, k, v, never)
    torch.testing.assert_close(replaced[0, 0, 1], v[0, 0, 1])
    torch.testing.assert_close(added[0, 0, 1], v[0, 0].sum(0))
