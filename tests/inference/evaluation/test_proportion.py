"""Exact intervals of proportions, against tables and closed forms."""

from __future__ import annotations

import pytest

from holo_cli.inference.evaluation.proportion import binomial_interval


def test_exact_intervals() -> None:
    """By the closed forms at the ends, and a case of Clopper and Pearson's kind from a table."""
    assert binomial_interval(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert binomial_interval(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert binomial_interval(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-4)
    assert binomial_interval(15, 50) == pytest.approx((0.17862, 0.44608), abs=1e-4)
    low, high = binomial_interval(4.5, 10)
    assert (low, high) == (binomial_interval(4, 10)[0], binomial_interval(5, 10)[1])


def test_binomial_intervals_are_those_of_the_tables() -> None:
    """Clopper & Pearson's for 0, 1 and 10 of 20."""
    assert binomial_interval(0, 20) == pytest.approx((0.0, 0.1684), abs=1e-4)
    assert binomial_interval(1, 20) == pytest.approx((0.0013, 0.2487), abs=1e-4)
    assert binomial_interval(10, 20) == pytest.approx((0.2720, 0.7280), abs=1e-4)
    assert binomial_interval(20, 20) == pytest.approx((0.8316, 1.0), abs=1e-4)
    assert binomial_interval(0, 0) == (0.0, 1.0)
