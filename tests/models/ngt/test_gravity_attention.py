"""The fast forms against the open one; nothing blows up, nothing is dead, no square is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from holo_cli.models.ngt import gravity_attention as gravity_module
from holo_cli.models.ngt.gravity_attention import gravity_attention
from holo_cli.models.ngt.kernels import Gravity, Kernel, Lorentz, make_kernel, with_squares
from holo_cli.models.ngt.mixer import MIN_MASS
from holo_cli.models.ngt.model import Model
from holo_cli.models.ngt.radius import general_attention
from holo_cli.models.ngt.reference import CASES
from tests.models.ngt.particles import ATTRACTING, B, D, E, H, T, config, kernel_of, particles

# -- fast forms and the open one -------------------------------------------------------------------


def naive(kernel: Kernel, q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """All pairs' differences at once, (B, H, S, L, d): what the fast forms must never make."""
    lift = k
    if isinstance(kernel, Lorentz):
        beta = kernel.log_beta.exp()[:, None, None]
        lift = torch.cat(((beta + k.square().sum(-1, keepdim=True)).sqrt(), k), -1)
        up = torch.cat(((beta + q.square().sum(-1, keepdim=True)).sqrt(), q), -1)
        sign = torch.ones(D + 1, dtype=q.dtype)
        sign[0] = -1
        inner = (up[:, :, :, None] * lift[:, :, None] * sign).sum(-1)
        squared = -2 * beta - 2 * inner
    else:
        squared = (q[:, :, :, None] - k[:, :, None]).square().sum(-1)
    if isinstance(kernel, Gravity):
        eps, power = kernel.eps()[:, None, None], kernel.power()[:, None, None]
        w = m.mT / (eps + squared) ** (power / 2)
    else:
        w = m.mT * (-kernel.figures()["gamma"][:, None, None] * squared).exp()
    w = w.tril(k.shape[2] - q.shape[2])
    return (w / w.sum(-1, keepdim=True)) @ v


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("queries", [T, 7, 1])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("gravity", {}),
        ("gravity", {"power": 2.0}),
        ("gravity", {"power": 3.0, "learn_power": True}),
        ("gaussian", {}),
        ("lorentz", {"beta": 0.5}),
    ],
)
def test_fast_and_general_forms_equal_the_naive_one(
    name: str, given: dict[str, Any], queries: int
) -> None:
    kernel = kernel_of(name, **given)
    q, k, m, v = particles(queries=queries)
    leaves = [q, k, m, v, *kernel.parameters()]
    weight = torch.randn(B, H, queries, E, dtype=torch.float64)
    expected = naive(kernel, q, k, m, v)
    wanted = torch.autograd.grad((expected * weight).sum(), leaves)
    fast = kernel.attention(q, k, m, v)
    assert fast is not None
    general = general_attention(kernel, None, q, k, m[:, :, -queries:], m.log(), v)
    for y in (fast, general):
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        grads = torch.autograd.grad((y * weight).sum(), leaves, retain_graph=True)
        for got, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("power", [2.0, 3.0, "learned"])
@pytest.mark.parametrize("queries", [11, 6])
def test_gradcheck_of_the_chunked_form(power: float | str, queries: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, queries, 4, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 11, 4, dtype=torch.float64, requires_grad=True)
    u = (0.2 + torch.rand(2, 11, 4, dtype=torch.float64)).requires_grad_()
    eps = torch.tensor([[[0.1]], [[1.0]]], dtype=torch.float64, requires_grad=True)
    p: Tensor | float = 2.0
    if isinstance(power, float):
        p = power
    else:
        p = torch.tensor([[[1.5]], [[4.0]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gravity_attention, (q, k, u, eps, p))


@pytest.mark.parametrize("given", [{}, {"power": 3.0}, {"learn_power": True}])
def test_one_query_equals_the_open_form(given: dict[str, Any]) -> None:
    kernel = kernel_of("gravity", **given)
    assert isinstance(kernel, Gravity)
    q, k, m, v = particles(queries=1)
    log_m = m.log().clone()
    log_m[:, :, :3] = float("-inf")  # as where a row has no token
    with torch.no_grad():
        got = kernel.of_one(q, with_squares(k), log_m, v)
        expected = naive(kernel, q, k, log_m.exp(), v)
    torch.testing.assert_close(got, expected)


def test_one_query_at_its_own_key_is_finite_in_float32() -> None:
    """Far from the origin the product loses the distance of zero; eps is a floor."""
    kernel = kernel_of("gravity").float()
    q = torch.full((1, H, 1, D), 300.0)
    with torch.no_grad():
        kernel.softening.fill_(-20.0)
        got = kernel.of_one(q, with_squares(q), torch.zeros(1, H, 1, 1), torch.ones(1, H, 1, E))
    torch.testing.assert_close(got, torch.ones_like(got))


def test_wide_coordinates_are_padded_the_other_way() -> None:
    """More coordinates than a value has places: values are padded and cut again."""
    kernel = make_kernel(config(kernel="gaussian", coords=12)).double()
    q, k = (torch.randn(1, 2, 9, 12, dtype=torch.float64) for _ in range(2))
    m, v = torch.rand(1, 2, 9, 1, dtype=torch.float64), torch.randn(1, 2, 9, 8).double()
    fast = kernel.attention(q, k, m, v)
    torch.testing.assert_close(fast, general_attention(kernel, None, q, k, m, m.log(), v))


def test_a_very_large_beta_is_flat_space() -> None:
    q, k, _, _ = particles()
    curved, flat = kernel_of("lorentz"), kernel_of("gaussian")
    with torch.no_grad():
        curved.log_beta.fill_(60.0)
    torch.testing.assert_close(curved.squared(q, k), flat.squared(q, k), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        curved.log_beta.fill_(0.0)
    assert not torch.allclose(curved.squared(q, k), flat.squared(q, k), rtol=0.05)


def test_curvature_is_real_in_the_model() -> None:
    """Points of one norm would make a hyperboloid flat: coordinates keep norms of their own."""
    torch.manual_seed(0)
    model = Model(config(kernel="lorentz"))
    torch.nn.init.normal_(model.blocks[0].mixer.out.weight)
    model.hidden(torch.randint(0, 29, (2, 12))).x.pow(3).sum().backward()
    grad = model.blocks[0].mixer.kernel.log_beta.grad
    assert (grad.abs() > 1e-3).all()


def test_in_float32_near_points_keep_their_distance() -> None:
    """Under autocast too: 0.1 between points of norm 8 is right to a few per cent."""
    kernel = kernel_of("gravity").float()
    q = 4 * torch.ones(1, H, 1, D)
    k = q.clone()
    k[..., 0] += 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernel.squared(q, k).sqrt().mean().item() == pytest.approx(0.1, rel=0.03)
        v = torch.ones(1, H, 1, E)
        assert kernel.attention(q, k, torch.ones(1, H, 1, 1), v).isfinite().all()


# -- nothing blows up, nothing is dead -------------------------------------------------------------


@pytest.mark.parametrize("name", [*ATTRACTING, "classic"])
def test_coincident_points_have_finite_gradients(name: str) -> None:
    kernel = kernel_of(name).float()
    z = torch.ones(1, H, 9, D, requires_grad=True)
    m = torch.ones(1, H, 9, 1, requires_grad=True)
    v = torch.randn(1, H, 9, E)
    forms = [general_attention(kernel, None, z, z, m, m.log(), v), kernel.attention(z, z, m, v)]
    for y in (form for form in forms if form is not None):
        for grad in torch.autograd.grad(y.square().sum(), [z, m, *kernel.parameters()]):
            assert grad.isfinite().all()


def test_extreme_powers_stay_finite() -> None:
    """Self far away, least mass, steepest power: a row still has a sum."""
    kernel = kernel_of("gravity", power=15.9).float()
    q = torch.full((1, H, 40, D), 8.0, requires_grad=True)
    m = torch.full((1, H, 40, 1), MIN_MASS)
    v = torch.ones(1, H, 40, E)
    y = kernel.attention(q, -q, m, v)
    torch.testing.assert_close(y, v)
    y.sum().backward()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("label", list(CASES))
def test_masses_radius_and_laws_get_gradients(label: str) -> None:
    torch.manual_seed(0)
    model = Model(config(**CASES[label])).train()
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.out.weight, std=0.3)
        torch.nn.init.normal_(block.mixer.mass.weight, std=0.3)
    tokens = torch.randint(0, 29, (4, 20))
    model.hidden(tokens).x.pow(3).sum().backward()
    for block in model.blocks:
        wanted = [block.mixer.mass.weight, *block.mixer.kernel.parameters()]
        if block.mixer.radius_cutoff is not None:
            wanted.append(block.mixer.radius_cutoff.radius)
        for p in wanted:
            assert p.grad is not None
            assert p.grad.isfinite().all()
            assert (p.grad != 0).all()


# -- memory ----------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Remembers the most elements any operation put into one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr():
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("label", [c for c in CASES if c not in ("gaussian", "lorentz")])
def test_training_memory_grows_with_the_length_and_not_with_its_square(label: str) -> None:
    """PyTorch's own attention, which gaussian and lorentz run on, is measured by its authors."""
    largest = {}
    for length in (512, 1024):
        model = Model(config(**CASES[label], layers=1, context=length)).train()
        with Largest() as seen:
            model.hidden(torch.zeros(1, length, dtype=torch.int64)).x.sum().backward()
        largest[length] = seen.elements
    heads = model.config.heads
    assert largest[1024] <= heads * gravity_module.BLOCK * 1024
    assert largest[1024] <= 2.1 * largest[512]
    assert largest[1024] < 1024 * 1024  # less than one head's pairs, let alone times d
