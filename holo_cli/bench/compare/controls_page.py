"""The page of `holo bench controls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.bench.compare.controls import INIT_SEED_OFFSET, PLACEBO, Controls
from holo_cli.bench.compare.controls_summary import DRAWS, ControlsSummary, sentences
from holo_cli.bench.compare.power import power
from holo_cli.bench.report import Report

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
    report.prose("\n".join(f"- {text}" for text in sentences(summary)), "Findings")
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
        ("entry", "known to", "effect, nats", "sd", "pairs", "seeds", "found", "opposite verdict",
         "power by theory"),
        [
            (
                c.entry, "help" if c.helps else "hurt", c.effect, c.sd, c.pairs, f.seeds,
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
