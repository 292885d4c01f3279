"""Is a difference between a few seeds a difference? Welch's interval, and a sentence that says so.

Welch's t interval does not assume that two models vary equally from seed to seed. With three seeds
the interval is wide, and rightly: a t quantile for two to four degrees of freedom is 2.8 to 4.3
standard errors. The t distribution is computed here (regularised incomplete beta function by its
continued fraction, Numerical Recipes section 6.4), so no statistics package is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, variance
from typing import Literal

LEVEL = 0.95
Verdict = Literal[
    "better", "worse", "perhaps better", "perhaps worse", "no difference seen", "not known"
]


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in some loss: below zero means that a is better.

    `half` is half the width of the 95 % interval and `p` the two-sided probability of a difference
    at least as large if there were none; both None with fewer than two seeds on a side.
    `p_corrected` is p after Holm's correction for all the comparisons made with it.
    """

    a: str
    b: str
    value: float
    half: float | None
    p: float | None
    seeds: tuple[int, int]
    p_corrected: float | None = None

    @property
    def verdict(self) -> Verdict:
        """In words; "perhaps" where it does not stand after correction for many comparisons."""
        if self.p is None or self.half is None:
            return "not known"
        if self.p > 1 - LEVEL:
            return "no difference seen"
        corrected = self.p if self.p_corrected is None else self.p_corrected
        if corrected <= 1 - LEVEL:
            return "better" if self.value < 0 else "worse"
        return "perhaps better" if self.value < 0 else "perhaps worse"

    def sentence(self, unit: str) -> str:
        """The finding as one sentence, with what it rests on."""
        size, rests = abs(self.value), f"{self.seeds[0]} and {self.seeds[1]} seeds"
        side = "better" if self.value < 0 else "worse"
        if self.half is None:
            return (
                f"{self.a} against {self.b}: {size:.4f} {unit} {side}, from {rests}: one seed has "
                "no spread, so nothing is claimed."
            )
        pair = f"{size:.4f} ± {self.half:.4f} {unit}"
        if self.verdict == "no difference seen":
            most = size + self.half
            return (
                f"{self.a} against {self.b}: no difference seen ({side} by {pair}; {rests}). "
                f"One of up to {most:.4f} either way cannot be ruled out."
            )
        if self.verdict.startswith("perhaps"):
            return (
                f"{self.a} is perhaps {side} than {self.b}, by {pair} ({rests}): clear if it were "
                "the only comparison, not among as many as were made here."
            )
        return f"{self.a} is {side} than {self.b} by {pair} ({rests}): clear."


def compare(a: str, b: str, losses_a: Sequence[float], losses_b: Sequence[float]) -> Difference:
    """Welch's comparison of two lists of losses, one per seed."""
    value = mean(losses_a) - mean(losses_b)
    seeds = (len(losses_a), len(losses_b))
    if min(seeds) < 2:
        return Difference(a, b, value, None, None, seeds)
    half, p = welch(losses_a, losses_b)
    return Difference(a, b, value, half, p, seeds)


def against(base: str, losses: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Every other model against one, with Holm's correction over these comparisons."""
    if not losses.get(base):
        return []
    found = [compare(n, base, x, losses[base]) for n, x in losses.items() if n != base and x]
    return holm(found)


def holm(found: Sequence[Difference]) -> list[Difference]:
    """Holm (1979): the i-th smallest of m probabilities times m - i + 1, never falling."""
    order = sorted((d for d in found if d.p is not None), key=lambda d: d.p or 0.0)
    corrected: dict[int, float] = {}
    highest = 0.0
    for i, difference in enumerate(order):
        assert difference.p is not None
        highest = min(1.0, max(highest, difference.p * (len(order) - i)))
        corrected[id(difference)] = highest
    return [replace(d, p_corrected=corrected.get(id(d))) for d in found]


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Half width of the 95 % interval of mean(a) - mean(b), and the two-sided p."""
    va, vb = variance(a) / len(a), variance(b) / len(b)
    error = math.sqrt(va + vb)
    difference = mean(a) - mean(b)
    if error == 0.0:  # runs that came out the same to the last bit
        return 0.0, 0.0 if difference else 1.0
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return t_quantile(LEVEL, freedom) * error, t_two_sided(difference / error, freedom)


def t_two_sided(t: float, freedom: float) -> float:
    """P(|T| >= |t|) for Student's t."""
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def t_quantile(level: float, freedom: float) -> float:
    """The t within which `level` of the distribution lies: 4.303 for 0.95 and 2."""
    low, high = 0.0, 1.0
    while t_two_sided(high, freedom) > 1 - level:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), regularised."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x > (a + 1) / (a + b + 2):  # where the fraction of the mirrored function converges faster
        return 1.0 - front * _fraction(1.0 - x, b, a) / b
    return front * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + numerator / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return value
