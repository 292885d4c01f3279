"""How many seeds a difference needs: the power of the paired t test, exactly.

With n seeds, paired differences that are normal with mean d and standard deviation s, and a test
against zero at level alpha, the statistic has Student's noncentral t distribution with n - 1
degrees of freedom and noncentrality d sqrt(n) / s. It is the ratio (Z + noncentrality) / R of a
normal and an independent chi over the root of its degrees of freedom, so a probability is one
integral over R (Johnson, Kotz & Balakrishnan, Continuous Univariate Distributions 2, chapter 31).
Simpson's rule computes it; no statistics package is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, stdev
from typing import Any

from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.result_log import ResultLog, Row, rows_path, test_loss
from holo_cli.experiment.significance import LEVEL, t_quantile
from holo_cli.wording import counted

POWER = 0.8
MAX_SEEDS = 200  # larger numbers are reported as "more than 200"
PANELS = 2000  # of Simpson's rule
SURE = 0.9  # confidence of the upper limit on the spread


def power(difference: float, spread: float, seeds: int, level: float = LEVEL) -> float:
    """Probability that `seeds` pairs give a verdict in the direction of the true `difference`.

    `spread` is the standard deviation of paired differences; `level` the test's confidence.
    """
    if seeds < 2:
        return 0.0
    freedom, bound = seeds - 1, t_quantile(level, seeds - 1)
    if spread == 0:
        return 1.0 if difference else 0.0
    shift = abs(difference) * math.sqrt(seeds) / spread
    normal = NormalDist()
    return _over_chi(freedom, lambda r: normal.cdf(shift - bound * r))


def seeds_needed(
    difference: float, spread: float, level: float = LEVEL, wanted: float = POWER
) -> int | None:
    """The fewest seeds with at least `wanted` power; None above MAX_SEEDS."""
    if power(difference, spread, MAX_SEEDS, level) < wanted:
        return None
    low, high = 1, MAX_SEEDS  # power grows with the number of seeds
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(difference, spread, middle, level) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def upper_spread(spread: float, freedom: int, sure: float = SURE) -> float:
    """The standard deviation that the true one is below with confidence `sure`, if `spread` was
    estimated with `freedom` degrees of freedom."""
    low, high = 0.0, 1.0  # the quantile of chi / sqrt(freedom) that is exceeded with `sure`
    for _ in range(50):
        middle = (low + high) / 2
        below = _over_chi(freedom, lambda r, at=middle: float(r <= at))  # type: ignore[misc]
        low, high = (middle, high) if below < 1 - sure else (low, middle)
    return spread / low if low else math.inf


def corrected_level(entries: int) -> float:
    """The level that satisfies Holm's correction in any case with `entries` comparisons: that of
    its first and strictest step."""
    return 1 - (1 - LEVEL) / max(1, entries)


def _over_chi(freedom: int, function: Callable[[float], float]) -> float:
    """Mean of function(R), R = chi / sqrt(freedom), by Simpson's rule."""
    half = freedom / 2
    constant = math.log(2) + half * math.log(half) - math.lgamma(half)

    def density(r: float) -> float:
        if r <= 0:
            return math.exp(constant) if freedom == 1 else 0.0
        return math.exp(constant + (freedom - 1) * math.log(r) - half * r * r)

    end = 1 + 9 / math.sqrt(freedom)  # the rest is less than 1e-15
    step = end / PANELS
    total = 0.0
    for i in range(PANELS + 1):
        weight = 1 if i in (0, PANELS) else 4 if i % 2 else 2
        total += weight * density(i * step) * function(i * step)
    return total * step / 3


# -- the spread in rows ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PairedSpread:
    """Standard deviation of paired differences, pooled over entries with separate means."""

    sd: float
    freedom: int
    pairs: Mapping[str, Sequence[float]]  # by entry: its differences to the baseline

    @property
    def upper(self) -> float:
        return upper_spread(self.sd, self.freedom)


def spread_in(page: Path, kind: str, base: str) -> PairedSpread | None:
    """The spread in the rows of a comparison's page; None without two pairs of any entry.

    Only runs of equal data, steps, batches and context are paired. Where a page holds several such
    groups, the one with the most pairs counts (the newest of equals). Raises UsageError and
    DataError for a page without rows.
    """
    path = rows_path(page)
    if not path.exists():
        return None
    groups: dict[tuple[Any, ...], dict[str, dict[int, Row]]] = {}
    newest: dict[tuple[Any, ...], str] = {}
    for row in ResultLog(path, kind):
        if row["role"] != "final" or row["status"] != "done":
            continue
        group = groups.setdefault(_group(row), {})
        newest[_group(row)] = max(newest.get(_group(row), ""), row["date"])
        own = group.setdefault(row["entry"], {})
        if row["seed"] not in own or own[row["seed"]]["date"] <= row["date"]:
            own[row["seed"]] = row
    found = [
        (pooled.freedom, newest[key], pooled)
        for key, group in groups.items()
        if (pooled := _pooled(group, base)) is not None
    ]
    return max(found, key=lambda f: f[:2])[2] if found else None


def _group(row: Row) -> tuple[Any, ...]:
    config = row["config"]
    training = config["training"]
    keys = ("steps", "batch_size", "grad_accum")
    context = config["model"]["context"]
    return (row["data"]["fingerprint"], *(training[key] for key in keys), context)


def _pooled(group: Mapping[str, Mapping[int, Row]], base: str) -> PairedSpread | None:
    pairs: dict[str, list[float]] = {}
    for entry, by_seed in group.items():
        shared = sorted(by_seed.keys() & group.get(base, {}).keys())
        if entry != base and len(shared) > 1:
            pairs[entry] = [test_loss(by_seed[s]) - test_loss(group[base][s]) for s in shared]
    freedom = sum(len(values) - 1 for values in pairs.values())
    if not freedom:
        return None
    squares = sum((len(v) - 1) * stdev(v) ** 2 for v in pairs.values())
    return PairedSpread(math.sqrt(squares / freedom), freedom, pairs)


# -- the answer -----------------------------------------------------------------------------------


def answer(
    difference: float, page: Path, kind: str, base: str, entries: int, *, named: bool
) -> dict[str, Any]:
    """How many seeds a difference of `difference` nats needs, as --json has it.

    `entries` are compared with `base`; `named` means that the page was given with --power-from.
    Raises UsageError for a difference that is not above 0 and DataError for a page without pairs.
    """
    if not difference > 0 or not math.isfinite(difference):
        raise UsageError(
            f"--power {difference:g}: the difference must be above 0.",
            next_step="Give it in nats per token, for example: --power 0.02",
        )
    spread = spread_in(page, kind, base)
    if spread is None:
        raise DataError(
            f"{rows_path(page)} has no two finished seeds of '{base}' and another entry, so the "
            "spread between seeds is not known.",
            next_step="Run the comparison with --seeds 3 first and ask again"
            + (
                f", or name a page in which '{base}' is the baseline."
                if named
                else ", or name a finished one with --power-from PAGE."
            ),
        )
    level = corrected_level(entries)
    upper = spread.upper
    return {
        "difference": difference,
        "base": base,
        "comparisons": entries,
        "confidence": level,
        "power": POWER,
        "spread": spread.sd,
        "spread_upper": upper,
        "pairs": {entry: len(values) for entry, values in spread.pairs.items()},
        "seeds": seeds_needed(difference, spread.sd, level),
        "seeds_upper": seeds_needed(difference, upper, level),
        "power_by_seeds": {
            seeds: power(difference, spread.sd, seeds, level) for seeds in (2, 3, 5, 8, 12)
        },
    }


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The answer as sentences."""
    pairs = ", ".join(f"{entry} {count}" for entry, count in found["pairs"].items())
    entries = found["comparisons"]
    among = f" among {entries} comparisons (Holm)" if entries > 1 else ""
    chances = ", ".join(f"{s}: {p:.0%}" for s, p in found["power_by_seeds"].items())
    return [
        f"A difference of {found['difference']:g} nats per token to {found['base']} needs "
        f"{_seeds(found['seeds'])} for a verdict with {found['power']:.0%} probability{among}.",
        f"Paired differences have a standard deviation of {found['spread']:.4f} (seeds in the "
        f"rows: {pairs}). It may be as large as {found['spread_upper']:.4f} ({SURE:.0%} "
        f"confidence), which needs {_seeds(found['seeds_upper'])}.",
        f"Probability of a verdict by number of seeds: {chances}.",
    ]


def _seeds(count: int | None) -> str:
    return f"more than {MAX_SEEDS} seeds" if count is None else f"{counted(count, 'seed')}"
