"""docs/theory.md, section 2: the kernel that a hologram approximates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic.binding import FeatureBinding, PhasorBinding
from holo_cli.models.holographic.phasors import Pair, phasor
from holo_cli.models.holographic.random_features import POWER, KernelName, kernel_value
from tests.models.holographic.parts import config
from tests.theory.test_gravity import bare_gravity, shares
from tests.theory.test_plates import random_values, read_all

SCALE = 0.7  # standard deviation of the weights


def kernel_values(plates: int, x: Tensor, rope: float = 0.0) -> Pair:
    """Of a binding with random phases, the same for queries and keys: mean over plates of
    conj(q_0) k_s, (S, heads x channels), for points x (S, C)."""
    width = x.shape[1]
    binding = PhasorBinding(
        config(width=width, heads=2, phases="learned", plates=plates, rope_fraction=rope)
    ).double()
    weight = SCALE * torch.randn(
        binding.qk_proj.weight.shape[0] // 2,
        width,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(plates),
    )
    with torch.no_grad():
        binding.qk_proj.weight.copy_(torch.cat((weight, weight)))
        q, k = binding.keys(x[None])
        first = Pair(q.re[:, :, :1], q.im[:, :, :1])
        product = first.conj_times(k)
    return Pair(*(part[0].mean(2).transpose(0, 1).flatten(1) for part in product))


def points(width: int) -> Tensor:
    """The origin, then points at distances 0.2 .. 3 from it, (9, C)."""
    make = torch.Generator().manual_seed(0)
    away = torch.randn(8, width, dtype=torch.float64, generator=make)
    away = away / away.norm(dim=1, keepdim=True) * torch.linspace(0.2, 3, 8)[:, None]
    return torch.cat((torch.zeros(1, width, dtype=torch.float64), away))


def test_the_mean_of_random_phases_is_a_gaussian_kernel() -> None:
    x = points(512)
    found = kernel_values(16, x)  # 512 channels of 16 plates each
    kernel = (-0.5 * SCALE**2 * x.square().sum(1)).exp()
    torch.testing.assert_close(found.re.mean(1), kernel, rtol=0.0, atol=0.03)
    torch.testing.assert_close(found.im.mean(1), torch.zeros_like(kernel), rtol=0.0, atol=0.03)


def test_the_error_falls_as_one_over_the_root_of_the_plates() -> None:
    x = points(512)
    kernel = (-0.5 * SCALE**2 * x.square().sum(1)).exp()
    for plates in (1, 4, 16):
        found = kernel_values(plates, x)
        error = (found.re - kernel[:, None]).square() + found.im.square()
        expected = (1 - kernel.square()) / plates
        torch.testing.assert_close(error.mean(1)[1:], expected[1:], rtol=0.2, atol=0.0)


def features(kernel: KernelName, plates: int, x: Tensor) -> Pair:
    """As `kernel_values`, of a binding with fixed frequencies whose points z are x itself."""
    coords = x.shape[1]
    width = 1024  # 512 channels in one head
    binding = FeatureBinding(
        config(
            width=width, heads=1, plates=plates, rope_fraction=0.0,
            phases=kernel, phase_coords=coords,
        ),
        kernel,
    ).double()  # fmt: skip
    with torch.no_grad():
        binding.qk_proj.weight.copy_(coords**0.5 * torch.eye(coords, width).repeat(2, 1))
        q, k = binding.keys(torch.nn.functional.pad(x, (0, width - coords))[None])
    product = Pair(q.re[:, :, :1], q.im[:, :, :1]).conj_times(k)
    return Pair(*(part[0, 0].mean(1) for part in product))  # (S, f)


@pytest.mark.parametrize("kernel", ["gaussian", "gravity"])
def test_fixed_frequencies_estimate_the_kernel_they_are_drawn_for(kernel: KernelName) -> None:
    x = points(8)
    found = features(kernel, 16, x)
    exact = kernel_value(kernel, x.square().sum(1))
    torch.testing.assert_close(found.re.mean(1), exact, rtol=0.0, atol=0.02)
    torch.testing.assert_close(found.im.mean(1), torch.zeros_like(exact), rtol=0.0, atol=0.02)


@pytest.mark.parametrize("kernel", ["gaussian", "gravity"])
def test_their_error_is_at_most_that_of_independent_ones(kernel: KernelName) -> None:
    """(1 - K^2) / R; less within d plates of a channel, which are orthogonal."""
    x = points(8)
    exact = kernel_value(kernel, x.square().sum(1))
    least = 1.0
    for plates in (1, 4, 8, 16):
        found = features(kernel, plates, x)
        error = ((found.re - exact[:, None]).square() + found.im.square()).mean(1)[1:]
        ratio = error * plates / (1 - exact.square())[1:]
        assert ratio.max().item() < 1.15  # 512 channels: sampling error
        if plates == 1:
            torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0.0, atol=0.15)
        least = min(least, ratio.min().item())
    assert least < 0.8


def test_the_kernel_of_gravity_is_ngts() -> None:
    """Up to a constant, (eps + r^2)^(-p/2) with eps = p: what ngt weighs tokens by."""
    squared = torch.linspace(0, 50, 11, dtype=torch.float64)[None]
    weight = shares(bare_gravity(POWER, eps=POWER), squared)[0]
    exact = kernel_value("gravity", squared[0])
    torch.testing.assert_close(weight / weight[0], exact, rtol=1e-6, atol=0.0)


def test_position_multiplies_the_kernel_by_one_of_the_distance_in_tokens() -> None:
    still = torch.zeros(9, 256, dtype=torch.float64)
    found = kernel_values(4, still, rope=1.0)  # one point at nine positions
    binding = PhasorBinding(config(width=256, heads=2, phases="learned", plates=4))
    rate = torch.tensor(binding.transform.rates, dtype=torch.float64).view(4, -1)  # (R, f)
    s = torch.arange(9, dtype=torch.float64)
    expected = (s[:, None, None] * rate).cos().mean(1).repeat(1, 2)
    torch.testing.assert_close(found.re, expected)


def crosstalk(phases: Tensor) -> Tensor:
    """Phases (N, R) -> for each item sum over the others of |mean_r conj(k_n) k_m|^2, (N,)."""
    k = torch.polar(torch.ones_like(phases), phases)
    gram = k.conj() @ k.T / phases.shape[1]
    return gram.abs().square().sum(1) - 1


@pytest.mark.parametrize(("items", "plates"), [(8, 8), (12, 5), (30, 4)])
def test_trained_phases_can_reach_the_welch_bound_and_no_more(items: int, plates: int) -> None:
    bound = max(0.0, (items - plates) / plates)
    # item n, plate r: the r-th of N Fourier frequencies
    n, r = torch.arange(items).double(), torch.arange(plates).double()
    best = 2 * math.pi * n[:, None] * r / items
    torch.testing.assert_close(crosstalk(best), torch.full_like(n, bound), rtol=0, atol=1e-12)
    make = torch.Generator().manual_seed(0)
    for _ in range(50):
        phases = 2 * math.pi * torch.rand(items, plates, dtype=torch.float64, generator=make)
        assert crosstalk(phases).mean().item() >= bound
    # and the plates of the model do it: as many items as plates come back without error
    keys = phasor(best[None, None, :, :, None].expand(-1, -1, -1, -1, 256))
    values = random_values(items, 256, 1)
    found = read_all(keys, values)
    noise = sum((a - b).square().mean() for a, b in zip(found, values, strict=True))
    assert torch.as_tensor(noise).item() == pytest.approx(2 * bound, rel=0.1, abs=1e-20)
