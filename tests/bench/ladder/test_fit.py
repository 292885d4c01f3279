"""The fit against curves whose truth is known, and how often its intervals hold the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from holo_cli.bench.ladder.fit import Fitted, fit, fit_together, interval

X = np.geomspace(1e12, 1e14, 4)
X0 = 1e13
E, A, ALPHA = 1.5, 1.5, 0.3


def truth(x: float, better: float = 0.0) -> float:
    return E + A * (x / X0) ** -ALPHA - better


def test_exact_points_give_the_curve_back() -> None:
    losses = np.array([[truth(x) for x in X]])
    curve = fit(X, losses)
    assert curve.loss(4e14)[0] == pytest.approx(truth(4e14), abs=5e-4)
    assert (curve.E[0], curve.alpha[0]) == pytest.approx((E, ALPHA), rel=0.01)
    assert curve.needed(truth(5e13))[0] == pytest.approx(5e13, rel=1e-3)
    assert curve.needed(E / 2)[0] == math.inf  # below the floor
    assert not curve.at_bound[0]


def test_it_is_as_good_as_a_slow_search_over_all_three() -> None:
    """Huber's loss by brute force over a grid of E, A and alpha around the best one."""
    rng = np.random.default_rng(3)
    losses = np.array([truth(x) for x in X]) + rng.normal(0, 0.01, 4)
    threshold = 1e-3
    curve = fit(X, losses[None], threshold)

    def huber(floor: float, scale: float, alpha: float) -> float:
        error = np.abs(1 - (floor + scale * (X / curve.x0) ** -alpha) / losses)
        inside = error <= threshold
        return float(np.where(inside, error**2 / 2, threshold * (error - threshold / 2)).sum())

    found = (float(curve.E[0]), float(curve.A[0]), float(curve.alpha[0]))
    assert huber(*found) == pytest.approx(float(curve.objective[0]), rel=1e-9)
    steps = np.linspace(-0.02, 0.02, 21)
    best = min(
        huber(found[0] + a, found[1] + b, found[2] * (1 + c))
        for a, b, c in itertools.product(steps, steps, steps)
    )
    assert huber(*found) <= best * 1.02


def test_one_wild_point_moves_it_little() -> None:
    x = np.repeat(X, 3)
    losses = np.array([truth(at) for at in x])
    losses += np.tile([-0.005, 0.0, 0.005], 4)
    wild = losses.copy()
    wild[5] += 0.5
    calm, moved = fit(x, np.stack([losses, wild]), threshold=0.002).loss(4e14)
    assert moved == pytest.approx(calm, abs=0.02)


def test_losses_that_do_not_fall_have_no_curve() -> None:
    assert not fit(X, np.array([[2.0, 2.1, 2.2, 2.3]])).falls


def noisy(
    rng: np.random.Generator, seeds: int, better: float, shared: np.ndarray
) -> list[dict[int, float]]:
    return [
        {s: truth(x, better) + shared[i, s] + rng.normal(0, 0.01) for s in range(seeds)}
        for i, x in enumerate(X)
    ]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """60 ladders of three seeds, 95 % intervals; 400 ladders held the truth in 93 to 96 %. Each
    bound is about three standard errors from that."""
    rng = np.random.default_rng(5)
    ahead, repeats = 4e14, 60
    hits = dict.fromkeys(("loss", "alpha", "difference", "spurious"), 0)
    for _ in range(repeats):
        shared = rng.normal(0, 0.01, (4, 3))
        losses = {"base": noisy(rng, 3, 0.0, shared), "own": noisy(rng, 3, 0.02, shared)}
        found = fit_together({"base": list(X), "own": list(X)}, losses, 100)
        base, own = found["base"], found["own"]
        assert base.resampled is not None
        assert own.resampled is not None
        low, high = base.interval(float(base.curve.loss(ahead)[0]), base.resampled.loss(ahead))
        hits["loss"] += low <= truth(ahead) <= high
        low, high = base.interval(float(base.curve.alpha[0]), base.resampled.alpha)
        hits["alpha"] += low <= ALPHA <= high
        value = float(own.curve.loss(ahead)[0] - base.curve.loss(ahead)[0])
        many = own.resampled.loss(ahead) - base.resampled.loss(ahead)
        low, high = own.interval(value, many)
        hits["difference"] += low <= -0.02 <= high
        hits["spurious"] += bool(base.misses)
    shares = {name: count / repeats for name, count in hits.items()}
    for name in ("loss", "alpha", "difference"):
        assert shares[name] >= 0.85, shares
    assert shares["spurious"] <= 0.1, shares


def test_a_form_that_does_not_hold_is_noticed() -> None:
    """A loss that first falls, then stays, then falls again is no power law."""
    rng = np.random.default_rng(1)
    losses = [{s: level + rng.normal(0, 0.005) for s in range(3)} for level in (3.0, 2.5, 2.5, 1.9)]
    found = fit_together({"a": list(X)}, {"a": losses}, 100)["a"]
    assert found.misses
    assert not fit_together({"a": list(X)}, {"a": noisy(rng, 3, 0, np.zeros((4, 3)))}, 100)[
        "a"
    ].misses


def test_three_rungs_are_met_exactly() -> None:
    losses = [{1: truth(x) + 0.01, 2: truth(x) - 0.01} for x in X[:3]]
    found = fit_together({"a": list(X[:3])}, {"a": losses}, 100)["a"]
    for x, by_seed in zip(X, losses, strict=False):
        mean = sum(by_seed.values()) / 2
        assert float(found.curve.loss(float(x))[0]) == pytest.approx(mean, abs=1e-3)


def test_one_seed_has_no_interval() -> None:
    found = fit_together({"a": list(X)}, {"a": [{1: truth(x)} for x in X]}, 100)["a"]
    assert isinstance(found, Fitted)
    assert found.resampled is None


def test_a_wider_level_and_fewer_seeds_give_wider_intervals() -> None:
    many = np.random.default_rng(0).normal(size=2000)
    low, high = interval(0.0, many, 1_000_000)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.15)
    for wider in (interval(0.0, many, 4), interval(0.0, many, 1_000_000, 0.99)):
        assert wider[0] < low
        assert wider[1] > high
    assert interval(math.inf, np.array([1.0, math.inf, math.inf]), 4)[1] == math.inf
