"""docs/theory.md, section 3: gravity as kernel regression."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from holo_cli.models.ngt.kernels import Gravity, Kernel
from holo_cli.models.ngt.radius import weights
from tests.models.ngt.particles import ATTRACTING, kernel_of, particles


def bare_gravity(power: float, eps: float = 0.0) -> Gravity:
    """Gravity of any power and any eps, also of those that the config refuses."""
    kernel = kernel_of("gravity")
    assert isinstance(kernel, Gravity)
    kernel.min_eps, kernel.fixed = eps, power
    with torch.no_grad():
        kernel.softening.fill_(-200.0)
    return kernel


def shares(kernel: Kernel, squared: Tensor) -> Tensor:
    """Weights of keys of mass 1 at squared distances (N, T), of one head; rows sum to 1."""
    wide = squared[:, None, None].expand(-1, 3, -1, -1)
    ones = torch.ones(1, 1, 1, 1, dtype=squared.dtype)
    log_m = torch.zeros(1, 1, squared.shape[1], 1, dtype=squared.dtype)
    with torch.no_grad():
        return kernel.score(wide, ones, log_m).softmax(-1)[:, 0, 0]


def ball(rows: int, keys: int, dimension: int, seed: int = 0) -> Tensor:
    """Squared distances (rows, keys) of points uniform in a ball around the query."""
    make = torch.Generator().manual_seed(seed)
    return torch.rand(rows, keys, dtype=torch.float64, generator=make) ** (2 / dimension)


@pytest.mark.parametrize("name", ATTRACTING)
def test_each_kernel_is_a_mean_weighted_by_mass_and_distance(name: str) -> None:
    kernel = kernel_of(name)
    q, k, m, v = (x.detach() for x in particles())
    with torch.no_grad():
        found = kernel.attention(q, k, m, v)
        assert found is not None
        raw = kernel.score(kernel.squared(q, k), torch.ones_like(m), m.log()).exp().tril()
        torch.testing.assert_close(found, raw @ v / raw.sum(-1, keepdim=True))


@pytest.mark.parametrize("name", ATTRACTING)
def test_mass_of_the_query_cancels_and_twice_the_mass_is_twice_the_odds(name: str) -> None:
    kernel = kernel_of(name)
    q, k, m, _ = (x.detach() for x in particles())
    with torch.no_grad():
        w = weights(kernel, None, q, k, m, m.log())
        torch.testing.assert_close(weights(kernel, None, q, k, 9 * m, m.log()), w)
        heavier = m.clone()
        heavier[:, :, 4] *= 2
        new = weights(kernel, None, q, k, heavier, heavier.log())[:, :, 5:, 4]
    old = w[:, :, 5:, 4]
    torch.testing.assert_close(new / (1 - new), 2 * old / (1 - old))


def test_gravity_is_a_mixture_of_gaussians_over_all_widths() -> None:
    power, eps = 5.0, 0.3
    squared = torch.tensor([[0.0, 0.1, 1.0, 7.0]], dtype=torch.float64)
    width = torch.linspace(1e-6, 200, 400_000, dtype=torch.float64)  # tau
    density = width ** (power / 2 - 1) * (-eps * width).exp()
    mixed = torch.stack([torch.trapezoid(density * (-width * s).exp(), width) for s in squared[0]])
    torch.testing.assert_close(
        shares(bare_gravity(power, eps), squared)[0], mixed / mixed.sum(), rtol=1e-4, atol=0.0
    )


def test_gravity_becomes_gaussian_as_the_power_grows() -> None:
    gamma, squared = 0.5, torch.tensor([[0.0, 0.5, 1.0, 2.0]], dtype=torch.float64)
    for power in (1e3, 1e4):
        gap = shares(bare_gravity(power, power / (2 * gamma)), squared).log()
        gap = gap - gap[:, :1] + gamma * squared
        torch.testing.assert_close(gap, gamma**2 * squared**2 / power, rtol=3e-3, atol=1e-12)


@pytest.mark.parametrize(("power", "dimension"), [(4.0, 2), (8.0, 2), (8.0, 6)])
def test_above_the_dimension_the_nearest_keys_hold_a_fixed_share(
    power: float, dimension: int
) -> None:
    found = shares(bare_gravity(power), ball(1000, 1000, dimension)).square().sum(1).mean()
    assert found.item() == pytest.approx(1 - dimension / power, abs=0.03)


def test_below_the_dimension_the_share_of_the_nearest_goes_to_zero() -> None:
    power, dimension = 2.0, 8
    kernel, ratio = bare_gravity(power), power / dimension
    for keys in (250, 2000):
        found = shares(kernel, ball(600, keys, dimension)).amax(1).mean().item()
        law = (1 - ratio) * math.gamma(1 - ratio) * keys ** (ratio - 1)
        assert found == pytest.approx(law, rel=0.06)


@pytest.mark.parametrize("name", ATTRACTING)
def test_bounded_points_bound_every_share(name: str) -> None:
    """With eps > 0 and points of bounded norm no key keeps its share as the text grows."""
    kernel = kernel_of(name)
    far = torch.tensor([[0.0, 9.0]], dtype=torch.float64)
    near_to_far = shares(kernel, far)[0]
    steepest = (near_to_far[0] / near_to_far[1]).item()
    for keys in (10, 1000):
        squared = torch.full((1, keys), 9.0, dtype=torch.float64)
        squared[0, 0] = 0.0  # the worst case
        assert shares(kernel, squared).max().item() <= steepest / keys


def test_the_gaussian_kernel_is_attention_with_normalized_keys_and_log_mass() -> None:
    kernel = kernel_of("gaussian")
    q, k, m, _ = (x.detach() for x in particles())
    q, k = 3 * q / q.norm(dim=-1, keepdim=True), 3 * k / k.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        gamma = kernel.figures()["gamma"][:, None, None]
        logits = 2 * gamma * q @ k.mT + m.log().mT
        past = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        torch.testing.assert_close(
            weights(kernel, None, q, k, m, m.log()),
            logits.masked_fill(~past, -math.inf).softmax(-1),
        )
