"""`holo bench ladder`: does a lead hold with size?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import bench_options, options
from holo_cli.cli.output import count
from holo_cli.errors import UsageError
from holo_cli.paths import BENCH
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.bench.ladder.plan import Ladder
    from holo_cli.bench.ladder.summary import Axis
    from holo_cli.cli.output import Output

DEFAULT_PLAN = "small"


def ladder(
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="A,B,...",
            help="Entries of the plan, or models; the first one is the baseline (default: all "
            "entries).",
        ),
    ] = None,
    variants: bench_options.Variants = None,
    preset: Annotated[str | None, bench_options.plan_preset(DEFAULT_PLAN)] = None,
    plan_file: bench_options.PlanFile = None,
    data: bench_options.Data = None,
    sets: bench_options.Sets = None,
    budgets: Annotated[
        str | None,
        typer.Option("--budgets", metavar="X,Y,...", help="Training tokens per parameter."),
    ] = None,
    rates: bench_options.Rates = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="Runs per entry, rung and budget.")
    ] = None,
    axis: Annotated[
        str,
        typer.Option(
            "--axis",
            metavar="WHAT",
            help="What the curves are fitted over: compute, tokens or parameters.",
        ),
    ] = "compute",
    ahead: Annotated[
        float | None,
        typer.Option("--ahead", metavar="X", help="Extrapolate to X times the largest compute."),
    ] = None,
    jobs: bench_options.Jobs = None,
    launcher: bench_options.LauncherName = "local",
    launcher_args: bench_options.LauncherArgs = "",
    retry_failed: bench_options.RetryFailed = False,
    redo: bench_options.Redo = None,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs and their sizes; train nothing.")
    ] = False,
    out_path: options.Out = None,
    open_page: options.Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: bench_options.Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Train entries at several sizes: does a lead hold, and by how much?

    Fits L = E + A C^-alpha for each entry and compares the curves. Interrupt it at any time: the
    same command resumes. Raw rows are in the .jsonl file beside the page.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.bench.ladder import plan as bench
    from holo_cli.experiment.launchers import Launcher
    from holo_cli.experiment.runner import RunOptions, execute

    plan, name = bench_options.read_plan(
        preset, plan_file, DEFAULT_PLAN, bench.named_plan, bench.read_plan
    )
    plan = bench_options.with_variants(plan, models, variants)
    plan = plan.changed(
        options.given(data=data, seeds=seeds, rates=bench_options.numbers("--rates", rates)),
        options.given(ahead=ahead, budgets=bench_options.numbers("--budgets", budgets)),
        options.given(**{"training.device": device, "training.dtype": dtype}),
        sets or (),
    )
    chosen_axis = _axis(axis)
    rows = out_path if report_only else None
    text = bench_options.data_or_only(plan.shared.data, out, reported=rows, kind=bench.KIND)
    plan = plan.changed({"data": text}, {})
    page = out_path or BENCH / f"ladder-{name}-{Path(plan.shared.data).name}.html"
    where = Launcher.of(launcher, launcher_args)
    side_by_side = bench_options.jobs_of(jobs, where)
    chosen = RunOptions(page, side_by_side, retry_failed, tuple(redo or ()), where, report_only)
    opened = bench.open_ladder(plan, chosen)
    if dry_run:
        _sizes(opened, out)
        return
    _announce(opened, out)
    if not report_only:
        execute(opened, chosen, notify=out.note, on_event=bench_options.ProgressPrinter(out))
    _report(opened, chosen_axis, page, open_page, out)


def _axis(text: str) -> Axis:
    from holo_cli.bench.ladder.summary import AXES

    for name in AXES:
        if text == name:
            return name
    raise UsageError(f"There is no axis '{text}'.", next_step=f"Use one of: {', '.join(AXES)}.")


def _announce(ladder: Ladder, out: Output) -> None:
    """What is trained, in a few lines on stderr."""
    plan = ladder.plan
    names = ", ".join(entry.name for entry in plan.shared.entries)
    out.note(f"A ladder on {ladder.data.path}: {names}.")
    for budget in plan.budgets:
        for experiment in ladder.ordered(budget):
            rung, source = experiment.rung, plan.rates_from(experiment.rung)
            rates = "rates swept" if source == rung else f"rates of {source.name}"
            steps = experiment.configs[ladder.base].training.steps
            read = experiment.epochs or 0.0
            epochs = f", {read:.1f} epochs" if read > 1 else ""
            out.note(
                f"  {rung.name} ({count(rung.parameters)} parameters), {budget:g} tokens per "
                f"parameter: {count(experiment.tokens)} tokens in "
                f"{counted(steps, 'step')}{epochs}; {rates}"
            )
    bench_options.note_left(ladder.left(), 0, out)


def _sizes(ladder: Ladder, out: Output) -> None:
    """--dry-run: the runs that would be made."""
    from holo_cli.bench.ladder.plan import sizes

    found = sizes(ladder)
    columns = ("rung", "budget", "entry", "parameters", "width", "steps", "tokens", "epochs",
               "FLOPs")  # fmt: skip
    rows = [
        (
            row["rung"], f"{row['tokens_per_parameter']:g}", row["entry"],
            count(row["parameters"]), row["width"], row["steps"], count(row["tokens"]),
            "" if row["epochs"] is None else f"{row['epochs']:.2f}",
            f"{row['train_flops']:.2e}",
        )
        for row in found
    ]  # fmt: skip
    out.table(columns, rows)
    flops = ladder.plan.shared.seeds * sum(row["train_flops"] for row in found)
    _announce(ladder, out)
    out.note(f"The reported runs need {flops:.1e} FLOPs in all; sweeps are not included.")
    out.document({"sizes": found, "train_flops": flops, "runs_left": ladder.left()})


def _report(ladder: Ladder, axis: Axis, page: Path, open_page: bool, out: Output) -> None:
    from holo_cli.bench.ladder.page import curves_table, findings, rungs_table, to_dict, write_page
    from holo_cli.bench.ladder.summary import summarise_ladder

    summary = summarise_ladder(ladder, axis)
    nbytes = write_page(ladder, summary, page)
    for budget, tracks in summary.budgets.items():
        out.heading(f"{budget:g} tokens per parameter")
        out.table(*rungs_table(tracks, summary.base))
        if any(track.fitted for track in tracks):
            out.text("")
            out.table(*curves_table(tracks, summary.ahead))
        out.text("")
    found = findings(summary)
    out.sentences(found)
    document = {
        "title": ladder.plan.shared.title,
        "data": ladder.data.path,
        "axis": axis,
        "ahead": summary.ahead,
        "entries": to_dict(summary),
        "findings": found,
    }
    bench_options.finish(document, ladder.rows, page, nbytes, open_page, out)
