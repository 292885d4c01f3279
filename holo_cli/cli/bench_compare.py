"""`holo bench compare`: which model learns this text best, at equal size, and how surely?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import bench_options, options, table_layout
from holo_cli.cli.output import count, size
from holo_cli.errors import UsageError
from holo_cli.paths import BENCH
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.cli.output import Output
    from holo_cli.experiment.experiment import Experiment
    from holo_cli.experiment.plan import Plan

DEFAULT_PLAN = "1m"


def compare(
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="A,B,...",
            help="Models, or entries of the plan; the first is the baseline. 'all' runs every "
            "entry of the plan (default: the plan's main entries).",
        ),
    ] = None,
    variants: bench_options.Variants = None,
    preset: Annotated[str | None, bench_options.plan_preset(DEFAULT_PLAN)] = None,
    plan_file: bench_options.PlanFile = None,
    data: bench_options.Data = None,
    sets: bench_options.Sets = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="WHAT",
            help="What is matched between entries: parameters, active (parameters that one token "
            "uses), time or none (default: the plan's).",
        ),
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option(
            "--parameters", metavar="N", help="Parameters to match; 0: those of the first entry."
        ),
    ] = None,
    rates: bench_options.Rates = None,
    sweep_share: Annotated[
        float | None,
        typer.Option(
            "--sweep-share",
            metavar="X",
            help="Share of the steps in a run of the sweep; 1 runs the whole schedule (default: "
            "the plan's).",
        ),
    ] = None,
    rates_from: Annotated[
        Path | None,
        typer.Option(
            "--rates-from",
            metavar="PAGE",
            help="Use the best rates of the comparison that wrote this page.",
        ),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            "--tune",
            metavar="N",
            help="Tune every entry's own settings and learning rates with N trials each, then "
            "train the seeds with the best (needs the extra 'tune'; default: rates only).",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", help="Runs of each entry at its best rate."),
    ] = None,
    first_seed: Annotated[
        int | None,
        typer.Option(
            "--first-seed",
            metavar="N",
            help="First seed of the reported runs; fresh seeds confirm a result (default: the "
            "plan's).",
        ),
    ] = None,
    steps: options.Steps = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="Sequences in a forward pass.")
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", metavar="N", help="Tokens in a sequence.")
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", metavar="SECONDS", help="Seconds of training per run, for --match time."
        ),
    ] = None,
    jobs: bench_options.Jobs = None,
    launcher: bench_options.LauncherName = "local",
    launcher_args: bench_options.LauncherArgs = "",
    retry_failed: bench_options.RetryFailed = False,
    redo: bench_options.Redo = None,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs, sizes and time; train nothing.")
    ] = False,
    power: Annotated[
        float | None,
        typer.Option(
            "--power",
            metavar="X",
            help="Train nothing: report how many seeds a difference of X nats per token needs.",
        ),
    ] = None,
    power_from: Annotated[
        Path | None,
        typer.Option(
            "--power-from",
            metavar="PAGE",
            help="With --power: take the spread between seeds from this page's rows.",
        ),
    ] = None,
    out_path: options.Out = None,
    open_page: options.Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: bench_options.Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Train models on the same text: which is better, and how surely?

    Each entry gets its own sweep of the learning rate and then several seeds. Interrupt it at any
    time: the same command resumes. Raw rows are in the .jsonl file beside the page.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.bench.compare import run as bench
    from holo_cli.experiment.launchers import Launcher
    from holo_cli.experiment.plan import named_plan, parse_variant
    from holo_cli.experiment.plan import read_plan as read
    from holo_cli.experiment.runner import RunOptions

    if tune is not None:
        _check_tune(tune, rates_from)
    plan, name = bench_options.read_plan(preset, plan_file, DEFAULT_PLAN, named_plan, read)
    plan = plan.selected(
        None if models is None else bench_options.models(models),
        [parse_variant(text) for text in variants or ()],
    )
    shared = {
        "model.context": context,
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.device": device,
        "training.dtype": dtype,
    }
    changes = {
        "data": data,
        "match": "time" if time_limit and match is None else match,
        "target": parameters,
        "seconds": time_limit,
        "seeds": seeds,
        "first_seed": first_seed,
        "tune": tune,
        "sweep_share": sweep_share,
        "rates": bench_options.numbers("--rates", rates),
    }
    plan = plan.changed(options.given(**changes), options.given(**shared), sets or ())
    if rates_from is not None:
        plan = plan.with_rates(bench.rates_for(plan, rates_from), str(rates_from))
    rows = out_path if report_only else None
    text = bench_options.data_or_only(plan.data, out, reported=rows, kind=bench.KIND)
    plan = plan.changed({"data": text})
    page = out_path or BENCH / f"compare-{name}-{Path(plan.data).name}.html"
    if power is not None or power_from is not None:
        _power(power, power_from, page, plan, out)
        return
    where = Launcher.of(launcher, launcher_args)
    side_by_side = bench_options.jobs_of(jobs, where)
    chosen = RunOptions(page, side_by_side, retry_failed, tuple(redo or ()), where, report_only)
    experiment = bench.open_experiment(plan, chosen)
    _announce(experiment, out)
    if dry_run:
        _dry_run(experiment, side_by_side, out)
        return
    if not report_only:
        progress = bench_options.ProgressPrinter(out)
        bench.run(experiment, chosen, notify=out.note, on_event=progress, estimate=True)
    _report(experiment, page, open_page, out)


def _dry_run(experiment: Experiment, jobs: int, out: Output) -> None:
    from holo_cli.bench.compare.summary import summarise
    from holo_cli.experiment.time_estimate import TimeEstimate

    expected = TimeEstimate(experiment, jobs)
    expected.announce(None, out.note)
    out.document(
        {
            "entries": [line.to_dict() for line in summarise(experiment).lines],
            "estimate": expected.to_dict(),
        }
    )


def _check_tune(trials: int, rates_from: Path | None) -> None:
    if trials < 1:
        raise UsageError(
            f"--tune {trials}: each entry needs at least one trial.",
            next_step="For example: --tune 16; without --tune only the learning rate is swept.",
        )
    if rates_from is not None:
        raise UsageError(
            "--tune finds the learning rates itself, so --rates-from has no effect.",
            next_step="Leave one out.",
        )


def _power(
    difference: float | None, source: Path | None, page: Path, plan: Plan, out: Output
) -> None:
    """--power: how many seeds a difference needs, by the spread in the rows of a page."""
    from holo_cli.bench.compare.power import answer, sentences
    from holo_cli.bench.compare.run import KIND

    if difference is None:
        raise UsageError(
            "--power-from needs to know the difference to plan for.",
            next_step="Add --power X, in nats per token.",
        )
    plan.check()
    found = answer(
        difference, source or page, KIND, plan.entries[0].name, len(plan.entries) - 1,
        named=source is not None,
    )  # fmt: skip
    out.sentences(sentences(found))
    out.document({"power": found})


def _announce(experiment: Experiment, out: Output) -> None:
    """What is compared, in a few lines on stderr."""
    from holo_cli.bench.compare.summary import UNMATCHED

    plan = experiment.plan
    what = {"parameters": "parameters", "active": "active parameters", "time": "training time"}
    matched = f", {what[plan.match]} matched" if plan.match in what else ""
    if experiment.target:
        matched += f" to {count(experiment.target)} within {plan.tolerance:.0%}"
    if any(experiment.is_matched(name) is False for name in experiment.described):
        matched += " but for those marked *"
    out.note(f"Comparing on {experiment.data.path}{matched}:")
    for name, described in experiment.described.items():
        config, rates = experiment.configs[name].model, experiment.entries[name].rates
        rate = f", rate x{rates[0]:g}" if rates is not None and len(rates) == 1 else ""
        out.note(
            f"  {name}: {count(described.parameters)}"
            f"{UNMATCHED if experiment.is_matched(name) is False else ''} parameters, "
            f"{count(described.active_parameters)} active; {counted(config.layers, 'layer')}, "
            f"{config.width} wide, MLP x{config.mlp_ratio:.3g}{rate}"
        )
    if experiment.tuning is not None:
        for name, space in experiment.tuning.spaces.items():
            knobs = ", ".join(key.rpartition(".")[2] for key in space)
            out.note(f"  {name}: {counted(experiment.tuning.budget, 'trial')} over {knobs}")
        for note in experiment.tuning.notes():
            out.note(f"  {note}")
    done = sum(row["status"] == "done" for row in experiment.rows)
    bench_options.note_left(experiment.left(), done, out)


def _tuned(experiment: Experiment) -> list[dict[str, Any]] | None:
    """For --json: each entry's budget and result; None without --tune."""
    if experiment.tuning is None:
        return None
    return [experiment.tuning.result(entry).to_dict() for entry in experiment.plan.entries]


def _report(experiment: Experiment, page: Path, open_page: bool, out: Output) -> None:
    from holo_cli.bench.compare.page import write_page
    from holo_cli.bench.compare.summary import costs, summarise, table

    summary = summarise(experiment)
    nbytes = write_page(experiment, summary, page)
    for columns, rows in (table(summary), costs(summary, count, size)):
        out.table(columns, rows, table_layout.WIDTH)
        out.text("", end="" if out.markdown else "\n")
    if experiment.tuning is not None:
        out.table(*experiment.tuning.table(), table_layout.WIDTH)
        out.text("", end="" if out.markdown else "\n")
    sentences = summary.sentences()
    if sentences:
        out.sentences(sentences)
    document = {
        "title": experiment.plan.title,
        "data": experiment.data.path,
        "entries": [line.to_dict() for line in summary.lines],
        "differences": [difference.to_dict() for difference in summary.differences],
        "findings": sentences,
        "tuning": _tuned(experiment),
    }
    bench_options.finish(document, experiment.rows, page, nbytes, open_page, out)
