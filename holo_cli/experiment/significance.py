"""Is a difference between a few seeds significant? A paired t interval, and a sentence for it.

A seed decides which tokens a run reads in which order, the same for every model, and some orders
are better than others for all models. So the difference of two runs with the same seed is compared,
seed by seed (Student's paired interval): what a seed does to both cancels. Two independent lists
(Welch's interval) would count it as noise of both. With three seeds the interval is still wide, as
it should be: the t quantile for two degrees of freedom is 4.3 standard errors. The t
distribution is computed here (regularised incomplete beta function by its continued fraction,
Numerical Recipes section 6.4), so no statistics package is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import Any, Literal

from holo_cli.wording import counted

LEVEL = 0.95
Verdict = Literal[
    "better", "worse", "perhaps better", "perhaps worse", "no difference seen", "not known"
]


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in some loss: below zero means that a is better.

    `half` is half the width of the 95 % interval and `p` the two-sided probability of a difference
    at least as large if there were none; both None with fewer than two `seeds` in common.
    `p_corrected` is p after Holm's correction for all the comparisons made with it.
    """

    a: str
    b: str
    value: float
    half: float | None
    p: float | None
    seeds: int
    p_corrected: float | None = None

    @property
    def verdict(self) -> Verdict:
        """In words; "perhaps" where it is significant only without the correction."""
        if self.p is None or self.half is None:
            return "not known"
        if self.p > 1 - LEVEL:
            return "no difference seen"
        corrected = self.p if self.p_corrected is None else self.p_corrected
        if corrected <= 1 - LEVEL:
            return "better" if self.value < 0 else "worse"
        return "perhaps better" if self.value < 0 else "perhaps worse"

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self) | {"verdict": self.verdict}

    def sentence(self, unit: str) -> str:
        """The finding as one sentence, with its interval and number of seeds."""
        size = abs(self.value)
        seeds = counted(self.seeds, "seed")
        side = "better" if self.value < 0 else "worse"
        if self.half is None:
            return (
                f"{self.a} against {self.b}: {size:.4f} {unit} {side}, with {seeds}: one seed has "
                "no spread, so no verdict is given."
            )
        pair = f"{size:.4f} ± {self.half:.4f} {unit}"
        if self.verdict == "no difference seen":
            better, worse = self.half - self.value, self.half + self.value
            return (
                f"{self.a} against {self.b}: no difference seen ({side} by {pair}; {seeds}). "
                f"Anything from {better:.4f} better to {worse:.4f} worse cannot be ruled out."
            )
        if self.verdict.startswith("perhaps"):
            return (
                f"{self.a} is perhaps {side} than {self.b}, by {pair} ({seeds}): significant as a "
                "single comparison, but not after correction for the number of comparisons."
            )
        return f"{self.a} is {side} than {self.b} by {pair} ({seeds}): significant."


def compare(
    a: str, b: str, losses_a: Mapping[int, float], losses_b: Mapping[int, float]
) -> Difference | None:
    """Paired comparison of losses by seed, over the seeds that both have; None without any."""
    seeds = sorted(losses_a.keys() & losses_b.keys())
    if not seeds:
        return None
    differences = [losses_a[seed] - losses_b[seed] for seed in seeds]
    half, p = paired(differences) if len(seeds) > 1 else (None, None)
    return Difference(a, b, mean(differences), half, p, len(seeds))


def against(base: str, losses: Mapping[str, Mapping[int, float]]) -> list[Difference]:
    """Every other entry against `base`, with Holm's correction over these comparisons."""
    found = [compare(n, base, x, losses[base]) for n, x in losses.items() if n != base]
    return holm([difference for difference in found if difference is not None])


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


def paired(differences: Sequence[float]) -> tuple[float, float]:
    """Half width of the 95 % interval of the mean of two or more differences, and its two-sided
    p against zero."""
    error = stdev(differences) / math.sqrt(len(differences))
    middle = mean(differences)
    if error == 0.0:  # the same to the last bit from seed to seed
        return 0.0, 0.0 if middle else 1.0
    freedom = len(differences) - 1
    return t_quantile(LEVEL, freedom) * error, t_two_sided(middle / error, freedom)


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
