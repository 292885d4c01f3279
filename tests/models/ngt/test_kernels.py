"""Gravity is gravity: weight falls with distance and grows with mass, for every kernel."""

from __future__ import annotations

import pytest
import torch

from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.kernels import KERNELS
from holo_cli.models.ngt.radius import weights
from tests.models.ngt.particles import ATTRACTING, kernel_of, pair_weight, particles


@pytest.mark.parametrize("name", ATTRACTING)
def test_moving_a_token_closer_raises_its_weight(name: str) -> None:
    kernel = kernel_of(name)
    shares = [pair_weight(kernel, d) for d in (5.0, 3.0, 2.0, 1.0, 0.3, 0.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 * shares[-1]


@pytest.mark.parametrize("name", ATTRACTING)
def test_a_token_infinitely_far_weighs_nothing(name: str) -> None:
    kernel = kernel_of(name)
    assert pair_weight(kernel, 1e6) < 1e-5 < pair_weight(kernel, 2.0)


@pytest.mark.parametrize("name", ATTRACTING)
def test_twice_the_mass_is_twice_the_odds(name: str) -> None:
    kernel = kernel_of(name)
    one, two = pair_weight(kernel, 1.5), pair_weight(kernel, 1.5, mass=2.0)
    assert two / (1 - two) == pytest.approx(2 * one / (1 - one), rel=1e-12)


def test_gravity_falls_as_the_power_of_the_distance() -> None:
    """Far from the softening, twice the distance is a quarter of the weight at p = 2."""
    kernel = kernel_of("gravity", power=2.0)
    near, far = pair_weight(kernel, 1e3), pair_weight(kernel, 2e3)
    assert (near / (1 - near)) / (far / (1 - far)) == pytest.approx(4.0, rel=1e-4)


def test_the_legacy_kernel_repels_and_says_so() -> None:
    kernel = kernel_of("classic")
    shares = [pair_weight(kernel, d) for d in (5.0, 3.0, 2.0, 1.0, 0.3, 0.0)]
    assert shares == sorted(shares, reverse=True)
    description = Config.model_fields["kernel"].description or ""
    assert "classic" in description
    assert "comparison" in description
    assert "comparison" in (KERNELS["classic"].__doc__ or "")


def test_the_mass_of_the_query_cancels() -> None:
    q, k, m, _ = particles()
    for name in ATTRACTING:
        kernel = kernel_of(name)
        torch.testing.assert_close(
            weights(kernel, None, q, k, 7 * m, m.log()), weights(kernel, None, q, k, m, m.log())
        )
    kernel = kernel_of("classic")
    assert not torch.allclose(
        weights(kernel, None, q, k, 7 * m, m.log()), weights(kernel, None, q, k, m, m.log())
    )


@pytest.mark.parametrize(("kernel", "heads", "warns"), [
    ("lorentz", 1, True), ("lorentz", 2, False), ("gaussian", 1, False),
])  # fmt: skip
def test_curvature_without_effect_is_said(kernel: str, heads: int, warns: bool) -> None:
    """Points are normalized over all heads: with one, all are equally far from the origin."""
    size = {"width": 16, "vocab_size": 8, "context": 8, "layers": 1}
    config = Config.model_validate({"kernel": kernel, "heads": heads, **size})
    assert bool(config.caution()) == warns
