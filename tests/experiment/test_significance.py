"""Intervals and probabilities against published tables, and the words that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from holo_cli.experiment.significance import (
    Difference,
    against,
    compare,
    holm,
    paired,
    t_quantile,
    t_two_sided,
)


def by_seed(losses: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(losses, 1))


def compared(a: str, b: str, of_a: Sequence[float], of_b: Sequence[float]) -> Difference:
    found = compare(a, b, by_seed(of_a), by_seed(of_b))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (1e6, 1.95997)]
)
def test_quantiles_are_those_of_the_tables(freedom: float, quantile: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(quantile, abs=2e-4)


def test_probabilities_have_their_closed_forms() -> None:
    """One degree of freedom is the Cauchy distribution, two have an algebraic form."""
    for t in (0.1, 1.0, 3.7, 25.0):
        assert t_two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
        assert t_two_sided(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)
        assert t_two_sided(-t, 2) == t_two_sided(t, 2)


def test_a_worked_example() -> None:
    """By hand: differences -1, -2, -3 have mean -2 and deviation 1, so the error is 0.57735; t is
    -3.4641 with two degrees of freedom, p = 1 - t / sqrt(2 + t^2) = 0.07418."""
    half, p = paired([-1.0, -2.0, -3.0])
    assert half == pytest.approx(4.30265 * 0.57735, rel=1e-5)
    assert p == pytest.approx(0.0741799, abs=1e-6)


def test_luck_that_all_models_share_is_no_noise() -> None:
    """Seeds differ by 0.1, models by 0.01 in every one of them: seen, though lists overlap."""
    found = compared("ngt", "vanilla", [1.60, 1.70, 1.801], [1.61, 1.71, 1.81])
    assert found.verdict == "better"
    assert found.value == pytest.approx(-0.0097, abs=1e-4)


def test_only_seeds_that_both_have_count() -> None:
    """The third seed, bad for one and never run for the other, says nothing."""
    found = compare("a", "b", {1: 1.0, 2: 1.1, 3: 9.0}, {1: 1.2, 2: 1.31})
    assert found is not None
    assert (found.seeds, found.value) == (2, pytest.approx(-0.205))
    assert compare("a", "b", {1: 1.0}, {2: 1.0}) is None


def test_a_significant_difference_is_called_significant() -> None:
    difference = compared("ngt", "vanilla", [1.60, 1.61, 1.62], [1.70, 1.72, 1.71])
    assert difference.verdict == "better"
    assert difference.value == pytest.approx(-0.1)
    sentence = difference.sentence("nats")
    assert "ngt is better than vanilla by 0.1000 ± 0.0248 nats" in sentence
    assert "significant" in sentence
    told = difference.to_dict()
    assert (told["a"], told["b"], told["verdict"]) == ("ngt", "vanilla", "better")
    assert told["value"] == pytest.approx(-0.1)


def test_a_difference_within_the_noise_is_not_a_finding() -> None:
    difference = compared("ngt", "vanilla", [1.60, 1.70, 1.65], [1.66, 1.68, 1.64])
    assert difference.verdict == "no difference seen"
    sentence = difference.sentence("nats")
    assert "no difference seen" in sentence
    assert "cannot be ruled out" in sentence
    assert difference.half is not None
    low, high = difference.value - difference.half, difference.value + difference.half
    assert low < 0 < high
    assert f"from {-low:.4f} better to {high:.4f} worse" in sentence


def test_one_seed_claims_nothing() -> None:
    difference = compared("a", "b", [1.0], [9.0])
    assert difference.verdict == "not known"
    assert difference.half is None
    assert "no verdict is given" in difference.sentence("nats")


def test_equal_runs_are_no_division_by_zero() -> None:
    assert paired([0.0, 0.0]) == (0.0, 1.0)
    assert paired([-0.5, -0.5]) == (0.0, 0.0)
    assert compared("a", "b", [1.0, 1.0], [1.0, 1.0]).verdict == "no difference seen"


def test_holm_corrects_for_the_number_of_comparisons() -> None:
    """p of 0.01, 0.02, 0.04 become 0.03, 0.04, 0.04: times 3, 2, 1, and never falling."""
    pairs = [compared(name, "base", [1.0, 1.1], [2.0, 2.2]) for name in "abc"]
    given = [
        type(d)(d.a, d.b, d.value, d.half, p, d.seeds)
        for d, p in zip(pairs, (0.04, 0.01, 0.02), strict=True)
    ]
    assert [d.p_corrected for d in holm(given)] == pytest.approx([0.04, 0.03, 0.04])
    many = holm([*given, *(type(d)(d.a, d.b, d.value, 1.0, 0.5, d.seeds) for d in given)])
    assert many[0].verdict == "perhaps better"  # 0.04 alone, 0.16 among six
    assert "perhaps" in many[0].sentence("nats")


def test_against_leaves_out_what_was_not_run() -> None:
    found = against("base", {"base": {1: 1.0, 2: 1.1}, "a": {1: 0.5, 2: 0.6}, "b": {}})
    assert [d.a for d in found] == ["a"]
    assert against("base", {"base": {}, "a": {1: 0.5}}) == []
