"""The results of a ladder: points, fitted curves, and two gates for each entry.

Gate 1, "at every rung": the paired differences to the baseline have the same verdict at every rung
(Holm's correction for the number of entries; none for the number of rungs, since all of them must
agree). Gate 2, "by extrapolation": the interval of the difference of the fitted curves, at a
multiple of the largest compute, is on one side of zero (Bonferroni's correction for the number of
entries). Each budget has its own curves: at a fixed number of tokens per parameter the loss is a
function of compute alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from holo_cli.bench.compare.summary import EntryResult, Summary, summarise
from holo_cli.bench.ladder.fit import Fitted, fit_together
from holo_cli.bench.ladder.plan import Ladder, RungExperiment
from holo_cli.experiment.significance import LEVEL, Difference, t_quantile
from holo_cli.experiment.stored_text import train_tokens

Axis = Literal["compute", "tokens", "parameters"]
AXES: dict[Axis, str] = {
    "compute": "training FLOPs",
    "tokens": "training tokens",
    "parameters": "parameters",
}
Gate = Literal["better", "worse", "not shown", "not known"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """An entry at a rung with a budget. `x` is None without finished runs."""

    rung: str
    line: EntryResult
    difference: Difference | None  # to the baseline
    x: float | None

    @property
    def whole(self) -> bool:
        """Whether some runs finished and none failed."""
        return bool(self.line.losses) and not self.line.failed and self.x is not None

    @property
    def verdict(self) -> str:
        if not self.whole:
            return self.line.status
        return "" if self.difference is None else self.difference.verdict


@dataclass(frozen=True)
class Against:
    """An entry's curve against the baseline's; every interval is None with one seed per rung."""

    at_equal: float  # difference of the fitted losses at the largest x of both
    at_equal_interval: Interval | None
    needed: float  # share of the baseline's x for the baseline's loss at its largest x; may be inf
    needed_interval: Interval | None
    needed_ahead: bool  # whether that loss is beyond the entry's measured points
    ahead: float  # difference of the fitted losses at `ahead` times the largest x
    ahead_interval: Interval | None  # at the corrected level
    trend: float  # change of the difference for ten times the x, by a straight line
    trend_half: float | None  # half of its 95 % interval

    @property
    def gate(self) -> Gate:
        if self.ahead_interval is None or not math.isfinite(self.ahead):
            return "not known"
        low, high = self.ahead_interval
        return "better" if high < 0 else "worse" if low > 0 else "not shown"

    @property
    def gap(self) -> str:
        """Whether the gap to the baseline opens or closes with size."""
        if self.trend_half is None:
            return "not known"
        if abs(self.trend) <= self.trend_half:
            return "no change seen"
        if self.at_equal * self.trend > 0:
            return "gap opens"
        return "gap closes"


@dataclass
class Track:
    """An entry with one budget: its points by rung, its curve and the comparison of curves."""

    entry: str
    budget: float
    points: list[Point]
    fitted: Fitted | None = None
    against: Against | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def rungs_gate(self) -> Gate:
        """Gate 1."""
        verdicts = {point.verdict for point in self.points}
        if not all(p.whole and p.difference and p.difference.p is not None for p in self.points):
            return "not known"
        if verdicts == {"better"}:
            return "better"
        return "worse" if verdicts == {"worse"} else "not shown"

    @property
    def slope(self) -> tuple[float, Interval | None] | None:
        """The exponent alpha with its interval."""
        if self.fitted is None or not self.fitted.curve.falls:
            return None
        alpha, many = float(self.fitted.curve.alpha[0]), self.fitted.resampled
        if many is None:
            return alpha, None
        low, high = self.fitted.interval(alpha, many.alpha)
        return alpha, (max(low, 0.0), high)  # the curves fall


@dataclass(frozen=True)
class LadderSummary:
    """`tracks` by budget, then in the plan's order of entries."""

    base: str
    axis: Axis
    ahead: float
    budgets: dict[float, list[Track]]
    remarks: list[str]

    def track(self, entry: str, budget: float) -> Track:
        return next(t for t in self.budgets[budget] if t.entry == entry)

    @property
    def entries(self) -> list[str]:
        return [track.entry for track in next(iter(self.budgets.values()))]


def summarise_ladder(ladder: Ladder, axis: Axis = "compute") -> LadderSummary:
    """Fit and compare the rows so far. An entry gets a curve once every rung has finished."""
    plan, remarks = ladder.plan, dict.fromkeys(_remarks_on_text(ladder))
    budgets: dict[float, list[Track]] = {}
    for budget in plan.budgets:
        experiments = ladder.ordered(budget)
        summaries = [summarise(experiment) for experiment in experiments]
        remarks |= dict.fromkeys(remark for s in summaries for remark in s.remarks)
        tracks = [
            Track(entry.name, budget, [
                _point(experiment, summary, number, axis)
                for experiment, summary in zip(experiments, summaries, strict=True)
            ])
            for number, entry in enumerate(plan.shared.entries)
        ]  # fmt: skip
        _fit(tracks, ladder)
        for track in tracks:
            track.notes += _edges(ladder, track)
        budgets[budget] = tracks
    return LadderSummary(ladder.base, axis, plan.ahead, budgets, list(remarks))


def _remarks_on_text(ladder: Ladder) -> list[str]:
    """A remark where runs read their text more than once, for the longest run."""
    text = train_tokens(ladder.data)
    longest = max(ladder.experiments.values(), key=lambda experiment: experiment.tokens)
    if text is None or longest.tokens <= text:
        return []
    return [
        f"The text has {text:,} training tokens, fewer than the "
        f"largest budget: runs read it up to {longest.tokens / text:.1f} times ({longest.where})."
    ]


def _point(experiment: RungExperiment, summary: Summary, number: int, axis: Axis) -> Point:
    line = summary.lines[number]
    tokens = line.median("tokens") or float(experiment.tokens)
    x = {
        "compute": tokens * experiment.described[line.entry].train_flops_per_token,
        "tokens": tokens,
        "parameters": float(line.parameters),
    }[axis]
    difference = summary.difference(line.entry)
    return Point(experiment.rung.name, line, difference, x if line.losses else None)


def _fit(tracks: list[Track], ladder: Ladder) -> None:
    """Curves of entries with every rung, each together with the baseline over shared seeds."""
    base, *others = tracks
    for track in tracks:
        missing = [p.rung for p in track.points if not p.whole]
        if missing:
            track.notes.append(f"no curve: {', '.join(missing)} not finished or failed")
    if not all(p.whole for p in base.points):
        return
    resamples = ladder.plan.resamples
    base.fitted = _curves([base], resamples)[base.entry]
    level = 1 - (1 - LEVEL) / max(1, len(others))
    for track in others:
        if all(p.whole for p in track.points):
            found = _curves([base, track], resamples)
            if found:
                track.fitted = found[track.entry]
                track.against = _against(base, track, found, ladder.plan.ahead, level)
    for track in tracks:
        track.notes += _cautions(track)


def _curves(tracks: Sequence[Track], resamples: int) -> dict[str, Fitted]:
    """Over the seeds that all of these tracks have at a rung; empty where they share none."""
    shared = [
        set.intersection(*(set(point.line.by_seed()) for point in points))
        for points in zip(*(track.points for track in tracks), strict=True)
    ]
    if not all(shared):
        return {}
    losses = {
        track.entry: [
            {seed: point.line.by_seed()[seed] for seed in seeds}
            for point, seeds in zip(track.points, shared, strict=True)
        ]
        for track in tracks
    }
    x = {track.entry: [point.x or 0.0 for point in track.points] for track in tracks}
    return fit_together(x, losses, resamples)


def _against(
    base: Track, track: Track, found: dict[str, Fitted], ahead: float, level: float
) -> Against:
    own, other = found[track.entry], found[base.entry]
    furthest = [max(point.x or 0.0 for point in t.points) for t in (track, base)]
    loss = other.curve.loss(furthest[1])
    needed = own.curve.needed(loss) / furthest[1]
    equal, beyond = min(furthest), ahead * max(furthest)
    differences = [own.curve.loss(x) - other.curve.loss(x) for x in (equal, beyond)]
    at_equal, at_ahead = (float(d[0]) for d in differences)
    for fitted in (own, other):
        if not fitted.curve.falls or fitted.misses:
            at_ahead = math.nan  # a curve that does not fit is not extrapolated
    equal_interval = needed_interval = ahead_interval = None
    if own.resampled is not None and other.resampled is not None:
        many, base_many = own.resampled, other.resampled
        equal_interval = own.interval(at_equal, many.loss(equal) - base_many.loss(equal))
        ahead_interval = own.interval(at_ahead, many.loss(beyond) - base_many.loss(beyond), level)
        shares = many.needed(base_many.loss(furthest[1])) / furthest[1]
        with np.errstate(divide="ignore"):  # in logarithms: a share is a ratio
            low, high = own.interval(float(np.log(needed[0])), np.log(shares))
        needed_interval = math.exp(low), math.exp(min(high, 700.0)) if high < math.inf else high
    trend, half = _trend(base, track)
    return Against(
        at_equal, equal_interval, float(needed[0]), needed_interval,
        bool(needed[0] * furthest[1] > furthest[0]), at_ahead, ahead_interval, trend, half,
    )  # fmt: skip


def _trend(base: Track, track: Track) -> tuple[float, float | None]:
    """Slope of the paired differences over log10 x, and half of its 95 % interval by the t
    distribution (None with one seed per rung)."""
    xs, differences = [], []
    for of_base, of_entry in zip(base.points, track.points, strict=True):
        losses = of_base.line.by_seed()
        for seed, loss in of_entry.line.by_seed().items():
            if seed in losses:
                xs.append(math.log10(of_base.x or 1.0))
                differences.append(loss - losses[seed])
    x, y = np.array(xs) - np.mean(xs), np.array(differences)
    slope = float((x * y).sum() / (x * x).sum())
    freedom = len(xs) - 2
    if len(xs) <= len(track.points) or freedom < 1:
        return slope, None
    rest = y - y.mean() - slope * x
    error = math.sqrt(float((rest**2).sum()) / freedom / float((x * x).sum()))
    return slope, t_quantile(LEVEL, freedom) * error


def _edges(ladder: Ladder, track: Track) -> list[str]:
    """Notes on sweeps whose best rate is the last one tried, with the rungs that use that rate."""
    plan, notes = ladder.plan, []
    for rung in plan.swept_rungs:
        experiment = ladder.experiments[rung.name, track.budget]
        sweep = experiment.sweep(experiment.entries[track.entry])
        if not (sweep.settled and sweep.at_edge):
            continue
        users = [r.name for r in plan.rungs if r is not rung and plan.rates_from(r) is rung]
        users = [name for name in users if name not in {r.name for r in plan.swept_rungs}]
        also = f", and {', '.join(users)} use{'s' if len(users) == 1 else ''} it too"
        notes.append(
            f"the best rate at {rung.name}, x{sweep.best:g}, is the last one tried on its side, so "
            f"a better one may be beyond it{also if users else ''}"
        )
    return notes


def _cautions(track: Track) -> list[str]:
    """Notes on how well a curve is determined."""
    fitted = track.fitted
    if fitted is None:
        return []
    if not fitted.curve.falls:
        return ["the loss does not fall with size, so no curve describes it"]
    notes = []
    if fitted.rungs == 3 and not fitted.misses:
        notes.append(
            "three rungs for three unknowns: the curve passes through the means, so its form is "
            "not tested"
        )
    if fitted.misses:
        worst = max(map(abs, fitted.misses))
        notes.append(
            f"the curve misses means by up to {worst:.4f}, more than the seeds explain, so it is "
            "not extrapolated"
        )
    if fitted.resampled is None:
        notes.append("one seed has no spread, so there are no intervals")
    else:
        share = float(fitted.resampled.at_bound.mean())
        if share > 1 - LEVEL:
            notes.append(
                f"E and alpha are not determined by these runs ({share:.0%} of the resampled fits "
                "are at a bound); only the curve near the measured points is"
            )
    return notes
