"""Fits L = E + A x^-alpha to losses, with intervals from resampling seeds.

The form and the loss of the fit follow Hoffmann et al. 2022 ("Training compute-optimal large
language models", arXiv 2203.15556, section 3.3): Huber's loss on the error of log L. Differences:
one independent variable; the error of log L is taken as (L - prediction) / L, equal to first order;
and Huber's threshold follows from the spread between seeds, where there are several. For a given
alpha the prediction is linear in E and A, so both have a closed form (iterated for Huber's
weights) and only alpha is searched for, on a grid that is refined. Everything runs over many data
sets at once, so a thousand refits of a bootstrap take about a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from holo_cli.experiment.significance import t_quantile

Array = NDArray[np.float64]
ALPHAS = (0.01, 3.0)  # range of exponents that is searched
GRID, FINER, ROUNDS = 40, 9, 3  # points of the grid, and of each round that refines it
REWEIGHTED = 6  # iterations of Huber's weights
THRESHOLD = 1e-3  # Huber's threshold of one seed, as in the paper
RESTS_ON = 2  # rungs whose spread determines most of an extrapolation's error
CHUNK = 100  # data sets fitted at once, which bounds the memory


@dataclass(frozen=True)
class Curves:
    """Fitted curves L = E + A (x / x0)^-alpha; each array has one value per data set, (B,)."""

    E: Array
    A: Array
    alpha: Array
    x0: float
    objective: Array

    def loss(self, x: float) -> Array:
        """The loss predicted at x, (B,)."""
        return self.E + self.A * (x / self.x0) ** -self.alpha

    def needed(self, loss: Array | float) -> Array:
        """The x at which the curve has this loss, (B,); infinite where it never has."""
        above = np.asarray(loss) - self.E
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            found = self.x0 * (above / self.A) ** (-1 / self.alpha)
        return np.where((above > 0) & (self.A > 0), found, np.inf)

    @property
    def falls(self) -> bool:
        """Whether the (first) curve falls with x at all."""
        return bool(self.A[0] > 0)

    @property
    def at_bound(self) -> NDArray[np.bool_]:
        """Whether a curve's floor or exponent is at a bound of the search, (B,) bool."""
        low, high = ALPHAS
        return (self.E <= 0) | (self.alpha <= low * 1.01) | (self.alpha >= high * 0.99)


def fit(x: Array, losses: Array, threshold: float = THRESHOLD) -> Curves:
    """Fit a curve to each row of `losses`, (B, P), at x, (P,) above 0.

    `threshold` is Huber's, in units of relative error.
    """
    x, losses = np.asarray(x, dtype=float), np.atleast_2d(np.asarray(losses, dtype=float))
    x0 = float(np.exp(np.log(x).mean()))
    parts = [
        _fit(np.log(x / x0), losses[at : at + CHUNK], threshold)
        for at in range(0, len(losses), CHUNK)
    ]
    E, A, alpha, objective = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Curves(E, A, alpha, x0, objective)


def _fit(log_x: Array, losses: Array, threshold: float) -> tuple[Array, Array, Array, Array]:
    rows = np.arange(len(losses))
    grid = np.geomspace(*ALPHAS, GRID)
    alphas = np.broadcast_to(grid, (len(losses), GRID))
    ratio = (ALPHAS[1] / ALPHAS[0]) ** (1 / (GRID - 1))
    for _ in range(ROUNDS + 1):
        E, A, objective = _linear(log_x, losses, alphas, threshold)
        best = objective.argmin(1)
        middle = alphas[rows, best]
        found = (E[rows, best], A[rows, best], middle, objective[rows, best])
        around = np.geomspace(1 / ratio, ratio, FINER)
        alphas = np.clip(middle[:, None] * around, *ALPHAS)
        ratio **= 2 / (FINER - 1)
    return found


def _linear(
    log_x: Array, losses: Array, alphas: Array, threshold: float
) -> tuple[Array, Array, Array]:
    """E, A and the loss of the fit for each data set and exponent, (B, K) each.

    Minimises Huber's loss of 1 - E u - A v with u = 1 / L and v = x^-alpha / L under E, A >= 0, by
    least squares with weights.
    """
    u = 1 / losses[:, None, :]  # (B, 1, P)
    v = np.exp(-alphas[:, :, None] * log_x) * u  # (B, K, P)
    weights = np.ones_like(v)
    for _ in range(REWEIGHTED):
        uu, uv, vv = (weights * u * u).sum(-1), (weights * u * v).sum(-1), (weights * v * v).sum(-1)
        su, sv = (weights * u).sum(-1), (weights * v).sum(-1)
        determinant = np.maximum(uu * vv - uv * uv, 1e-300)
        E, A = (su * vv - sv * uv) / determinant, (sv * uu - su * uv) / determinant
        E, A = np.where(E < 0, 0.0, E), np.where(E < 0, sv / vv, A)
        E, A = np.where(A < 0, su / uu, E), np.where(A < 0, 0.0, A)
        error = np.abs(1 - E[..., None] * u - A[..., None] * v)
        weights = threshold / np.maximum(error, threshold)
    huber = np.where(error <= threshold, error**2 / 2, threshold * (error - threshold / 2))
    return E, A, huber.sum(-1)


# -- seeds ----------------------------------------------------------------------------------------

SeedLosses = Sequence[Mapping[int, float]]  # by rung: the losses by seed


@dataclass(frozen=True)
class Fitted:
    """A curve, and the curves of resampled seeds in the same order for all entries of one call."""

    curve: Curves  # of the losses as they are, B = 1
    resampled: Curves | None  # None where a rung has a single seed
    freedom: int  # degrees of freedom of the spread between seeds; see RESTS_ON
    rungs: int
    misses: tuple[float, ...] = ()  # errors at rungs beyond what the seeds explain

    def interval(self, value: float, resampled: Array, level: float = 0.95) -> tuple[float, float]:
        return interval(value, resampled, self.freedom, level)


def fit_together(
    x: Mapping[str, Sequence[float]], losses: Mapping[str, SeedLosses], resamples: int
) -> dict[str, Fitted]:
    """Fit each entry's curve, resampling the same seeds for all of them.

    `x[entry]` has one value per rung, `losses[entry]` the losses by seed at each rung; all entries
    have the same seeds at a rung. Within each rung seeds are drawn with replacement. A mean of n
    resampled values has only (n - 1) / n of the variance of a mean of n new ones, so deviations
    from the rung's mean are scaled up by sqrt(n / (n - 1)). The degrees of freedom are those of two
    rungs, on which an extrapolation mainly rests: with those of all rungs, intervals of three seeds
    that should hold the truth in 95 % of cases held it in 88 % (`tests/bench/ladder/test_fit.py`
    measures it).
    """
    rng = np.random.default_rng(0)  # so that a report is reproducible
    first = next(iter(losses.values()))
    seeds = [sorted(by_seed) for by_seed in first]
    several = all(len(own) > 1 for own in seeds)
    drawn = [rng.integers(len(own), size=(resamples, len(own))) for own in seeds]
    freedom = sum(sorted(len(own) - 1 for own in seeds)[:RESTS_ON])
    found = {}
    for entry, by_rung in losses.items():
        values = [np.array([at[s] for s in own]) for at, own in zip(by_rung, seeds, strict=True)]
        points = np.repeat(np.array(x[entry], dtype=float), [len(v) for v in values])
        threshold = _threshold(values)
        resampled = None
        if several:
            parts = [
                v.mean() + (v[d] - v.mean()) * math.sqrt(len(v) / (len(v) - 1))
                for v, d in zip(values, drawn, strict=True)
            ]
            resampled = fit(points, np.concatenate(parts, axis=1), threshold)
        curve = fit(points, np.concatenate(values)[None], threshold)
        misses = _misses(curve, x[entry], values) if several else ()
        found[entry] = Fitted(curve, resampled, freedom, len(seeds), misses)
    return found


def _misses(curve: Curves, x: Sequence[float], values: Sequence[Array]) -> tuple[float, ...]:
    """Differences of the curve from the means of rungs, where beyond the 99 % interval of the mean.
    The relative spread between seeds is assumed to be equal at every rung."""
    freedom = sum(len(v) - 1 for v in values)
    off = [float(curve.loss(at)[0] - v.mean()) for at, v in zip(x, values, strict=True)]
    allowed = t_quantile(0.99, freedom) * _spread(values)
    return tuple(
        miss
        for miss, v in zip(off, values, strict=True)
        if abs(miss) > allowed * float(v.mean()) / math.sqrt(len(v))
    )


def _threshold(values: Sequence[Array]) -> float:
    """Huber's threshold: 1.345 standard deviations of the relative error between seeds, by which
    the fit keeps 95 % of the efficiency of least squares on normal errors (Huber 1981)."""
    if all(len(v) < 2 for v in values):
        return THRESHOLD
    return max(1.345 * _spread(values), 1e-6)


def _spread(values: Sequence[Array]) -> float:
    """Standard deviation between seeds relative to the mean, pooled over the rungs."""
    squares = sum(float((((v - v.mean()) / v.mean()) ** 2).sum()) for v in values)
    return math.sqrt(squares / sum(len(v) - 1 for v in values))


def interval(
    value: float, resampled: Array, freedom: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentiles of the resampled values, widened around `value` by the ratio of Student's
    quantile to the normal one: a few seeds underestimate their spread.

    Infinite ends stand for "never".
    """
    tail = (1 - level) / 2
    ordered = np.sort(resampled)
    ends = [ordered[round(share * (len(ordered) - 1))] for share in (tail, 1 - tail)]
    wider = t_quantile(level, freedom) / NormalDist().inv_cdf(1 - tail)
    if not math.isfinite(value):
        return float(ends[0]), math.inf
    low, high = (float(value + wider * (end - value)) for end in ends)
    return low, high
