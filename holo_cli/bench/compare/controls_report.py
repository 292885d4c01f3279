"""The results of the controls: shares of false verdicts and of planted changes detected; tables,
sentences and the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.bench.compare.controls import INIT_SEED_OFFSET, PLACEBO, Controls
from holo_cli.bench.compare.power import power
from holo_cli.experiment.significance import LEVEL, compare, t_quantile
from holo_cli.inference.evaluation.proportion import binomial_interval
from holo_cli.visualize.report import Report
from holo_cli.wording import counted

Array = NDArray[np.float64]
DRAWS = 20_000  # campaigns resampled from all pairs
OUTER, INNER = 200, 4000  # resamples for the interval of their share
MAX_SUBSETS = 20_000  # up to which every subset of seeds is used


@dataclass(frozen=True)
class Placebo:
    """`false` of `campaigns` separate campaigns had a verdict; `resampled` is the share among
    campaigns resampled from all pairs, with its interval over other possible pairs."""

    seeds: int
    pairs: int
    sd: float | None
    campaigns: int
    better: int
    worse: int
    interval: tuple[float, float]
    resampled: float | None
    resampled_interval: tuple[float, float] | None

    @property
    def false(self) -> int:
        return self.better + self.worse

    @property
    def as_stated(self) -> bool:
        """Whether the share is consistent with the stated confidence."""
        low, high = self.interval
        return low <= 1 - LEVEL <= high


@dataclass(frozen=True)
class VerdictShares:
    """Shares of correct and of wrong verdicts with `seeds` seeds, and the power by theory."""

    seeds: int
    right: float
    wrong: float
    predicted: float


@dataclass(frozen=True)
class Planted:
    """A change known to help (or hurt): its effect, and how often it is detected."""

    entry: str
    helps: bool
    pairs: int
    effect: float | None
    sd: float | None
    found: list[VerdictShares]


@dataclass(frozen=True)
class ControlsSummary:
    base: str
    placebo: Placebo
    planted: list[Planted]
    failed: list[str]  # labels and errors of failed runs

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        p = self.placebo
        return {
            "placebo": {
                "seeds": p.seeds, "pairs": p.pairs, "sd": p.sd, "campaigns": p.campaigns,
                "better": p.better, "worse": p.worse, "expected_share": 1 - LEVEL,
                "share": p.false / p.campaigns if p.campaigns else None, "interval": p.interval,
                "resampled_share": p.resampled, "resampled_interval": p.resampled_interval,
            },
            "planted": [
                {
                    "entry": c.entry, "known_to": "help" if c.helps else "hurt",
                    "pairs": c.pairs, "effect": c.effect, "sd": c.sd,
                    "found": [vars(f) for f in c.found],
                }
                for c in self.planted
            ],
            "failed": self.failed,
        }  # fmt: skip


def summarise_controls(controls: Controls) -> ControlsSummary:
    """From the rows there are so far."""
    plan = controls.controls
    failed = [
        f"{run.label()}: {row['error']}"
        for run in controls.wanted()
        if (row := controls.row(run)) is not None and row["status"] != "done"
    ]
    planted = [
        _planted(name, name in plan.helps, controls.differences(name), plan.found_with)
        for name in (*plan.helps, *plan.hurts)
    ]
    pool = controls.differences(PLACEBO)
    return ControlsSummary(controls.base, placebo(pool, plan.campaign_seeds), planted, failed)


def placebo(pool: dict[int, float], seeds: int) -> Placebo:
    """Verdicts of placebo campaigns of `seeds` seeds each, from a pool of differences by seed.

    Separate campaigns share no run, so their number of verdicts is binomial. Resampled ones draw
    their seeds from the whole pool, and for each which of the two runs is called the placebo, as
    the two are exchangeable.
    """
    order = sorted(pool)
    verdicts = []
    for at in range(0, len(order) - seeds + 1, seeds):
        own = order[at : at + seeds]
        found = compare(PLACEBO, "base", {s: pool[s] for s in own}, dict.fromkeys(own, 0.0))
        assert found is not None
        verdicts.append(found.verdict)
    better, worse = (verdicts.count(word) for word in ("better", "worse"))
    values = np.array([pool[s] for s in order])
    resampled = interval = None
    rng = np.random.default_rng(0)  # so that a report is reproducible
    if len(values) >= 2 * seeds:
        resampled = _false_share(values, seeds, DRAWS, rng)
    if len(values) >= 4 * seeds:
        # halves of a pool differ from it as a pool of its size does from the truth (delete-half
        # jackknife, Shao & Wu 1989), and hold no pair twice
        half = len(values) // 2
        others = [
            _false_share(rng.choice(values, half, replace=False), seeds, INNER, rng)
            for _ in range(OUTER)
        ]
        low, high = np.quantile(others, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        interval = float(low), float(high)
    return Placebo(
        seeds, len(order), stdev(pool.values()) if len(pool) > 1 else None, len(verdicts), better,
        worse, binomial_interval(better + worse, len(verdicts)), resampled, interval,
    )  # fmt: skip


def _false_share(values: Array, seeds: int, draws: int, rng: np.random.Generator) -> float:
    """Share of verdicts among campaigns sampled from a pool, each without repeated pairs."""
    chosen = rng.random((draws, len(values))).argpartition(seeds - 1, axis=1)[:, :seeds]
    signs = rng.choice([-1.0, 1.0], size=chosen.shape)
    return float((np.abs(_t(values[chosen] * signs)) > t_quantile(LEVEL, seeds - 1)).mean())


def _t(draws: Array) -> Array:
    """Student's statistic of each row of differences, (N, n) -> (N,)."""
    n = draws.shape[1]
    error = draws.std(1, ddof=1) / math.sqrt(n)
    middle = draws.mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, middle / error, np.where(middle == 0, 0.0, np.inf * middle))


def _planted(entry: str, helps: bool, pool: dict[int, float], found_with: Sequence[int]) -> Planted:
    values = np.array([pool[s] for s in sorted(pool)])
    effect = float(values.mean()) if len(values) else None
    sd = stdev(pool.values()) if len(pool) > 1 else None
    found = []
    for seeds in found_with:
        if len(values) < seeds or sd is None or effect is None:
            continue
        t, bound = _t(_subsets(values, seeds)), t_quantile(LEVEL, seeds - 1)
        low, high = float((t < -bound).mean()), float((t > bound).mean())
        right, wrong = (low, high) if helps else (high, low)
        as_known = (effect < 0) == helps
        predicted = power(effect, sd, seeds) if as_known else 0.0
        found.append(VerdictShares(seeds, right, wrong, predicted))
    return Planted(entry, helps, len(values), effect, sd, found)


def _subsets(values: Array, size: int) -> Array:
    """Every subset of this size, or many random ones where there are too many, (N, size)."""
    if math.comb(len(values), size) <= MAX_SUBSETS:
        return values[np.array(list(itertools.combinations(range(len(values)), size)))]
    rng = np.random.default_rng(0)
    return values[rng.random((MAX_SUBSETS, len(values))).argpartition(size - 1)[:, :size]]


# -- as text --------------------------------------------------------------------------------------


def findings(summary: ControlsSummary) -> list[str]:
    """The findings."""
    p, lines = summary.placebo, []
    if not p.campaigns:
        lines.append(f"No placebo campaign of {counted(p.seeds, 'seed')} is finished.")
    else:
        low, high = p.interval
        lines.append(
            f"Placebo: {p.false} of {counted(p.campaigns, 'campaign')} of "
            f"{counted(p.seeds, 'seed')} had a verdict "
            f"({p.better} better, {p.worse} worse), {p.false / p.campaigns:.1%} "
            f"({low:.1%} to {high:.1%}, exact); {1 - LEVEL:.0%} are expected. That is "
            + ("consistent" if p.as_stated else "not consistent")
            + " with the stated confidence."
        )
    if p.resampled is not None:
        around = ""
        if p.resampled_interval is not None:
            low, high = p.resampled_interval
            around = f" ({low:.1%} to {high:.1%}, by the number of pairs)"
        lines.append(
            f"Resampled from all {counted(p.pairs, 'placebo pair')}: {p.resampled:.1%} of "
            "campaigns had a "
            f"verdict{around}."
        )
    for change in summary.planted:
        if change.effect is None or change.sd is None:
            lines.append(f"{change.entry}, known to {'help' if change.helps else 'hurt'}: not run.")
            continue
        shares = ", ".join(
            f"{f.right:.0%} with {counted(f.seeds, 'seed')} (theory {f.predicted:.0%})"
            for f in change.found
        )
        wrong = max((f.wrong for f in change.found), default=0.0)
        unlike = "" if (change.effect < 0) == change.helps else ", the opposite of what is known"
        lines.append(
            f"{change.entry}, known to {'help' if change.helps else 'hurt'}: "
            f"{change.effect:+.4f} nats per token{unlike} "
            f"(sd {change.sd:.4f}, {counted(change.pairs, 'pair')}); found in {shares}; the "
            "opposite verdict "
            f"in at most {wrong:.0%}."
        )
    return lines + [f"Failed: {text}." for text in summary.failed]


def table(summary: ControlsSummary) -> tuple[Sequence[str], list[Sequence[str]]]:
    """As text, within 80 columns."""
    p = summary.placebo
    rows: list[Sequence[str]] = []
    if p.campaigns:
        rows.append((
            PLACEBO, "nothing", "" if p.sd is None else f"{p.sd:.4f}", str(p.seeds),
            f"{p.false / p.campaigns:.0%} of {p.campaigns}",
            "" if p.resampled is None else f"{p.resampled:.1%}", f"{1 - LEVEL:.0%}",
        ))  # fmt: skip
    for change in summary.planted:
        for number, found in enumerate(change.found):
            first = number == 0 and change.effect is not None
            rows.append((
                change.entry if first else "",
                f"{change.effect:+.4f}" if first else "",
                f"{change.sd:.4f}" if first else "",
                str(found.seeds), "", f"{found.right:.0%}", f"{found.predicted:.0%}",
            ))  # fmt: skip
    columns = ("entry", "effect", "sd", "seeds", "verdicts", "resampled", "expected")
    return columns, rows


# -- the page -------------------------------------------------------------------------------------

MAX_SEEDS = 12  # on the plot


def write_page(controls: Controls, summary: ControlsSummary, path: Path) -> int:
    """Write the page; returns its size in bytes."""
    machines = [row["machine"] for row in controls.rows]
    report = Report(
        controls.controls.shared.title or "How often are the verdicts wrong?",
        "Verdicts of holo bench compare where the truth is known: for a model against itself with "
        "other initial weights, where any verdict is false, and for planted changes that are known "
        "to help or to hurt.",
        dict(machines[-1]) if machines else {},
    )
    report.prose("\n".join(f"- {text}" for text in findings(summary)), "Findings")
    p = summary.placebo
    report.table(
        "Placebo",
        ("campaigns", "seeds in each", "better", "worse", "share", "exact 95 % interval",
         "resampled share", "95 % interval of that", "expected", "sd of differences, nats"),
        [(
            p.campaigns, p.seeds, p.better, p.worse,
            _share(p.false / p.campaigns) if p.campaigns else None, _range(p.interval),
            None if p.resampled is None else _share(p.resampled),
            None if p.resampled_interval is None else _range(p.resampled_interval),
            "5.0 %", p.sd,
        )],
        "Share: campaigns with a verdict, each of which is false. Separate campaigns share no run; "
        "resampled ones are drawn from all pairs.",
    )  # fmt: skip
    report.table(
        "Planted changes",
        ("entry", "known to be", "effect, nats", "sd", "pairs", "seeds", "found",
         "opposite verdict", "power by theory"),
        [
            (
                c.entry, "better" if c.helps else "worse", c.effect, c.sd, c.pairs, f.seeds,
                _share(f.right), _share(f.wrong), _share(f.predicted),
            )
            for c in summary.planted for f in c.found
        ],
        "Found: the share of comparisons with this number of seeds that had the correct verdict.",
    )  # fmt: skip
    traces = [trace for c in summary.planted for trace in _traces(c)]
    if traces:
        report.plot(
            "Detection of planted changes", traces,
            {"xaxis": {"title": {"text": "seeds"}},
             "yaxis": {"title": {"text": "share of correct verdicts"}}},
            "Marks are measured; lines are the power of the paired t test for the measured effect "
            "and spread.",
        )  # fmt: skip
    _differences(report, controls)
    report.prose(_method(controls), "Method")
    return report.write(path)


def _traces(change: Any) -> list[dict[str, Any]]:
    if not change.found:
        return []
    seeds = list(range(2, MAX_SEEDS + 1))
    theory = [power(change.effect, change.sd, n) for n in seeds]
    return [
        {"name": change.entry, "x": [f.seeds for f in change.found], "mode": "markers",
         "y": [f.right for f in change.found]},
        {"name": change.entry, "table": f"{change.entry}: theory", "x": seeds, "y": theory,
         "mode": "lines", "showlegend": False},
    ]  # fmt: skip


def _differences(report: Report, controls: Controls) -> None:
    names = [PLACEBO, *controls.controls.helps, *controls.controls.hurts]
    found = {name: controls.differences(name) for name in names}
    seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
    report.table(
        f"Differences to {controls.base} by seed, nats per token",
        ("seed", *names),
        [(seed, *(_signed(found[name].get(seed)) for name in names)) for seed in seeds],
    )


def _method(controls: Controls) -> str:
    plan, resolved = controls.controls, controls.configs[controls.base]
    training = resolved.training
    tokens = training.batch_size * training.grad_accum * resolved.model.context
    return f"""The baseline is {controls.base} with \
{controls.described[controls.base].parameters:,} parameters, trained for {training.steps} steps of \
{tokens:,} tokens. The placebo has the same settings, batches and order of batches for each seed; \
its initial weights come from another seed (`training.init_seed` = {INIT_SEED_OFFSET:,} + the \
seed). Verdicts are those of the paired t test of `holo bench compare` at 95 %, one comparison at \
a time, without a sweep of the learning rate. Resampled shares are of {DRAWS:,} campaigns of \
{plan.campaign_seeds} seeds.

The controls do not cover learning rates chosen by a sweep, or other texts.

Prepared set: {controls.data.name}, fingerprint {controls.data.fingerprint[:16]}."""


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.4f}"
