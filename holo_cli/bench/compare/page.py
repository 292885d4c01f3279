"""The page of a comparison: findings, table, curves, sweeps, every run, and how it was made."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holo_cli.bench.compare.summary import EntryResult, Summary, bits_per_nat, verdict
from holo_cli.experiment.experiment import SWEEP_SEED, Experiment
from holo_cli.experiment.result_log import test_bpb, test_loss
from holo_cli.experiment.significance import t_quantile
from holo_cli.visualize.page import MISSING
from holo_cli.visualize.report import Report, moment
from holo_cli.wording import counted

Trace = dict[str, Any]
BITS = "bits per byte"
TUNING_NOTE = (
    "Trials: finished trials of the budget. Infeasible: settings that could not be built or "
    "matched in size and were replaced. Default and tuned: the lowest loss, in nats per token on "
    "the tune half, of the plan's learning rates alone and of all trials; the gain is their "
    "difference. It is the best of many trials on that text: the table above shows the loss on "
    "the other half."
)
IN_COLUMNS = ("layers", "heads", "width", "mlp_ratio")  # settings that have a column of their own


def write_page(experiment: Experiment, summary: Summary, path: Path) -> int:
    """Write the page; returns its size in bytes."""
    plan, data = experiment.plan, experiment.data
    machines = [row["machine"] for row in experiment.rows]
    machine = dict(machines[-1]) if machines else {}
    report = Report(
        plan.title or f"Which model learns {data.name} best?",
        f"{counted(len(summary.lines), 'model')}, trained from scratch on the same tokens of "
        f"'{data.name}' in the same order, each at the best of the "
        f"{'settings' if plan.tune else 'learning rates'} tried. Lower is better everywhere. A "
        "difference counts only if it is larger than differences between random seeds.",
        machine,
    )
    report.prose(_findings(experiment, summary), "Findings")
    _results(report, experiment, summary)
    _tuning(report, experiment)
    _plot(
        report,
        "Final loss of each model",
        _ends(summary.lines),
        _axes("", BITS),
        "Each mark is a seed; the bar is the 95 % interval of the mean, for two seeds or more.",
    )
    share = bits_per_nat(experiment)
    _plot(
        report,
        "Loss by tokens",
        [t for line in summary.lines for t in _curve(line, "tokens", share)],
        _axes("tokens trained on", BITS),
        "Mean over the seeds, on the whole validation text; bars reach from the best seed to the "
        "worst. Curves drop at the end because the learning rate decays there.",
    )
    _plot(
        report,
        "Loss by time",
        [t for line in summary.lines for t in _curve(line, "train_seconds", share)],
        _axes("seconds of training", BITS),
        "The same losses by wall clock time: mean seconds over the seeds, without evaluations. The "
        "machine may have been busy; the order of models is more reliable than the seconds.",
    )
    _plot(
        report,
        "Learning rate sweeps",
        [t for line in summary.lines for t in _sweep(experiment, line)],
        _axes("factor on the model's learning rates", "nats per token", log=True),
        f"Loss on the tune half of the validation text after a run of {plan.sweep_share:.0%} of "
        f"the steps, seed {SWEEP_SEED}. The reported runs of a model use the rate of its lowest "
        "point. Failed rates have no mark.",
    )
    _shapes(report, experiment, summary)
    _runs(report, experiment)
    report.prose(_method(experiment), "Method")
    return report.write(path)


def _plot(
    report: Report, caption: str, traces: list[Trace], layout: dict[str, Any], note: str
) -> None:
    """A figure, where there is something to draw."""
    if traces:
        report.plot(caption, traces, layout, note)


def _findings(experiment: Experiment, summary: Summary) -> str:
    sentences = summary.sentences(missing=False)
    lines = [line for line in summary.lines if line.bits is not None]
    best = min(lines, key=lambda line: line.bits or 0.0) if lines else None
    first = []
    if best is not None and len(lines) > 1:
        first = [
            f"The lowest mean, which alone is not a verdict: {best.entry}, "
            f"{best.bits:.4f} {BITS} ({best.loss:.4f} nats per token)."
        ]
    missing = _not_run(experiment)
    if missing:
        first.append(f"Not run yet, so without figures: {', '.join(missing)}.")
    return (
        "\n".join(f"- {text}" for text in [*sentences[:1], *first, *sentences[1:]])
        or "Nothing has been run yet."
    )


def _not_run(experiment: Experiment) -> list[str]:
    """Runs of the plan that have no row."""
    missing = []
    for entry in experiment.plan.entries:
        final_runs = experiment.final_runs(entry)
        if not experiment.sweep(entry).settled:
            missing.append(f"{entry.name} (its sweep is not finished)")
        elif some := [f"seed {r.seed}" for r in final_runs if experiment.row(r) is None]:
            missing.append(f"{entry.name} ({', '.join(some)})")
    return missing


def _results(report: Report, experiment: Experiment, summary: Summary) -> None:
    rows = []
    for line in summary.lines:
        difference = summary.difference(line.entry)
        rows.append((
            line.entry, *map(_fixed, (line.bits, line.bits_sd, line.loss, line.loss_sd)),
            None if difference is None else f"{difference.value:+.4f}",
            None if difference is None else _fixed(difference.half),
            verdict(line, difference, MISSING),
            len(line.losses), line.note,
        ))  # fmt: skip
    columns = (
        "model", "bits per byte", "sd", "nats per token", "sd", f"nats against {summary.base}",
        "± 95 %", "verdict", "seeds", "remarks",
    )  # fmt: skip
    report.table(
        "Results",
        columns,
        rows,
        "Losses after the last step, on the half of the validation text that no learning rate was "
        "chosen by: mean and standard deviation (sd) over seeds. ± 95 %: half of the interval of "
        "the difference, in nats per token. A dash marks what was not measured.",
    )
    costs = []
    for line in summary.lines:
        peak = line.median("peak_rss_bytes")
        costs.append((
            line.entry, line.parameters, line.matched, line.active_parameters, line.state_bytes,
            experiment.final_size(line.entry).train_flops_per_token,
            None if line.rate is None else f"x{line.rate:g}", line.median("tokens"),
            line.median("train_seconds"), line.median("tokens_per_second"),
            None if peak is None else peak / 1e6,
        ))  # fmt: skip
    headings = (
        "model", "parameters", "matched", "active", "state, bytes", "FLOPs/token", "best rate",
        "tokens", "training s", "tokens/s", "peak memory, MB",
    )  # fmt: skip
    report.table(
        "Size, time and memory",
        headings,
        costs,
        "Matched: whether the entry meets what the plan matches (see below). Active parameters are "
        "those that one token uses. State is what decoding keeps of one text as long as the "
        "context. FLOPs are those of training, by formula. Time, speed and peak memory (of the "
        "whole process) are medians over the seeds.",
    )


def _tuning(report: Report, experiment: Experiment) -> None:
    """The budget of each entry and what it found."""
    if experiment.tuning is not None:
        columns, rows = experiment.tuning.table()
        report.table("Results of tuning", columns, rows, TUNING_NOTE)


def _fixed(value: float | None) -> str | None:
    """With four decimals, so that numbers in a column line up."""
    return None if value is None else f"{value:.4f}"


def _ends(lines: Sequence[EntryResult]) -> list[Trace]:
    traces: list[Trace] = []
    for line in lines:
        if line.bits is None:
            continue
        n = len(line.bpb)
        names = [line.entry] * n
        traces.append(
            {
                "name": line.entry,
                "x": names,
                "y": line.bpb,
                "mode": "markers",
                "text": [f"seed {row['seed']}" for row in line.rows],
            }
        )
        if n > 1:
            half = t_quantile(0.95, n - 1) * statistics.stdev(line.bpb) / n**0.5
            traces.append(
                {
                    "name": line.entry,
                    "table": f"{line.entry}: mean and its 95 % interval",
                    "x": [line.entry],
                    "y": [line.bits],
                    "mode": "markers",
                    "marker": {"symbol": "line-ew-open", "size": 18},
                    "error_y": {"type": "data", "array": [half], "width": 8},
                    "text": ["mean"],
                    "showlegend": False,
                }
            )
    return traces


def _curve(line: EntryResult, against: str, share: float) -> list[Trace]:
    """Mean over the seeds at each evaluation that all of them have."""
    curves = [row["curve"] for row in line.rows]
    if not curves:
        return []
    points = list(zip(*curves, strict=False))
    losses = [[p["val_loss"] * share for p in point] for point in points]
    middle = [statistics.mean(values) for values in losses]
    return [
        {
            "name": line.entry,
            "x": [statistics.mean(p[against] for p in point) for point in points],
            "y": middle,
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [max(v) - m for v, m in zip(losses, middle, strict=True)],
                "arrayminus": [m - min(v) for v, m in zip(losses, middle, strict=True)],
                "width": 0,
            },
        }
    ]


def _sweep(experiment: Experiment, line: EntryResult) -> list[Trace]:
    sweep = experiment.sweep(experiment.entries[line.entry])
    found = [(rate, loss) for rate, loss in sorted(sweep.losses.items())]
    if len(found) < 2:
        return []
    return [
        {
            "name": line.entry,
            "x": [rate for rate, _ in found],
            "y": [loss for _, loss in found],
            "text": [
                "failed" if x is None else "best" if r == sweep.best else "" for r, x in found
            ],
        }
    ]


def _shapes(report: Report, experiment: Experiment, summary: Summary) -> None:
    rows = []
    for line in summary.lines:
        resolved = experiment.final_config(line.entry)
        model, training = resolved.model, resolved.training
        own = ", ".join(f"{k} = {v}" for k, v in line.settings.items() if k not in IN_COLUMNS)
        rows.append((
            line.entry, line.model, model.layers, model.heads, model.width,
            round(model.mlp_ratio * model.width), training.lr, training.adam_lr, own,
        ))  # fmt: skip
    columns = (
        "entry", "model", "layers", "heads", "width", "MLP units", "lr at x1", "AdamW's at x1",
        "other settings that differ from the model's defaults",
    )  # fmt: skip
    report.table("Settings", columns, rows)


def _runs(report: Report, experiment: Experiment) -> None:
    rows = []
    for run in experiment.wanted():
        row = experiment.row(run)
        if run.role == "pace":
            continue
        if row is None:
            rows.append((run.entry, run.role, f"x{run.rate:g}", run.seed, "not run", *[None] * 9))
            continue
        peak = row.get("peak_rss_bytes")
        done = row["status"] == "done"
        losses = (test_bpb(row), test_loss(row)) if done else (None, None)
        rows.append((
            run.entry, run.role, f"x{run.rate:g}", run.seed,
            row["status"] if row["status"] == "done" else row["error"],
            *losses, row.get("steps"), row.get("tokens"),
            row.get("train_seconds"), row.get("cpu_seconds"),
            None if peak is None else peak / 1e6, row["code"], moment(row["date"]),
        ))  # fmt: skip
    columns = (
        "entry", "role", "rate", "seed", "status", "bits per byte", "nats per token", "steps",
        "tokens", "training s", "CPU s", "peak memory, MB", "code", "finished, UTC",
    )  # fmt: skip
    report.table(
        "Every run",
        columns,
        rows,
        "From the raw rows beside this page, which have all settings. CPU seconds are those of the "
        "whole process with its evaluations, and unknown for a run that was interrupted. Code is a "
        "fingerprint of the source code that made the run.",
    )


def _method(experiment: Experiment) -> str:
    plan, data = experiment.plan, experiment.data
    first = next(iter(experiment.configs.values()))
    training, context = first.training, first.model.context
    sizes = {
        "parameters": f"Widths (then MLP units) are set so that each has {experiment.target:,} "
        f"parameters within {plan.tolerance:.0%}.",
        "active": f"Widths (then MLP units) are set so that a token uses {experiment.target:,} "
        f"parameters within {plan.tolerance:.0%}; total parameters differ.",
        "time": f"Each trains for about {plan.seconds:g} seconds: the number of steps is set from "
        "its measured speed, so that its whole schedule is run.",
        "none": "Sizes are as the plan gives them, not matched.",
    }[plan.match]
    exempt = [name for name in experiment.configs if experiment.is_matched(name) is False]
    if exempt:
        sizes += f" Exceptions, with their own sizes: {', '.join(exempt)}."
    rows = training.batch_size * training.grad_accum
    batches = f"{rows} x {context} tokens ({rows * context:,})"
    if plan.match != "time":
        batches = f"{counted(training.steps, 'step')} of {batches}"
    convs = {getattr(r.model, "conv", 0) for r in experiment.configs.values()}
    short = (
        f"a short convolution of width {convs.pop()} in all"
        if len(convs) == 1 and convs != {0}
        else "no short convolution"
        if convs == {0}
        else "a short convolution in some entries only"
    )
    last = plan.first_seed + plan.seeds - 1
    paragraphs = [
        [
            sizes,
            f"Equal for all entries: {batches}, {short}, the same tokenizer "
            f"({experiment.vocab:,} tokens), and for equal seeds the same batches in the same "
            "order.",
        ],
        [_choice(experiment)],
        [
            f"The reported runs have seeds {plan.first_seed} to {last}, which were not used for "
            "any choice.",
            "Choices are made by the loss on one half of the validation text, and the loss on the "
            "other half is reported.",
        ],
        [
            "Reported is the loss after the last step, never the best on the way.",
            f"Windows of {context} tokens do not overlap.",
            "Bits per byte = nats x validation tokens / (ln 2 x "
            f"{data.byte_count('val'):,} bytes of text), so they can be compared across "
            "tokenizers.",
        ],
        [
            "Differences are taken seed by seed, since a seed gives all models the same batches, "
            "with a paired t interval at 95 %.",
            '"Perhaps" marks a difference that is significant alone but not after Holm\'s '
            "correction for the number of comparisons.",
            "With two or three seeds the interval is wide and its width itself uncertain: "
            '"no difference seen" does not mean that there is none.',
            "The results hold for this text, this size and this length of training.",
        ],
        [f"Prepared set: {data.name}, fingerprint {data.fingerprint[:16]}."],
    ]
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs)


def _choice(experiment: Experiment) -> str:
    """How the settings of the reported runs were chosen."""
    plan = experiment.plan
    if experiment.tuning is None:
        tried = (
            "Learning rates: factors on both peak rates (Muon's and AdamW's), tried with seed "
            f"{SWEEP_SEED}."
        )
        extended = (
            "A sweep whose lowest or highest rate is best is extended, "
            f"{plan.extend} times at most."
        )
        return f"{tried} {extended}" if plan.extend else tried
    return (
        f"Tuning: {counted(plan.tune, 'trial')} for each entry, with seed {SWEEP_SEED} and "
        f"{plan.sweep_share:.0%} of the steps. The first are the plan's learning rates (factors on "
        "both peak rates, Muon's and AdamW's); the others are proposed by Optuna's TPE sampler "
        "over the rates, the training settings common to all and those of the model for which its "
        "config declares a range, but for what the plan or the entry sets. "
        + " ".join(experiment.tuning.notes())
    ).strip()


def _axes(x: str, y: str, log: bool = False) -> dict[str, Any]:
    xaxis: dict[str, Any] = {"title": {"text": x}} if x else {"title": {"text": "model"}}
    if log:
        xaxis["type"] = "log"
    return {"xaxis": xaxis, "yaxis": {"title": {"text": y}}}
