"""`holo bench controls`: how often does the comparison give a false verdict, or miss a change?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import bench_options, options
from holo_cli.cli.output import count
from holo_cli.paths import BENCH
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.bench.compare.controls import Controls
    from holo_cli.cli.output import Output

DEFAULT_PLAN = "small"


def controls(
    preset: Annotated[str | None, bench_options.plan_preset(DEFAULT_PLAN)] = None,
    plan_file: bench_options.PlanFile = None,
    data: bench_options.Data = None,
    sets: bench_options.Sets = None,
    campaigns: Annotated[
        int | None,
        typer.Option("--campaigns", metavar="N", help="Placebo campaigns (default: the plan's)."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", metavar="N", help="Seeds of each placebo campaign (default: the plan's)."
        ),
    ] = None,
    jobs: bench_options.Jobs = None,
    launcher: bench_options.LauncherName = "local",
    launcher_args: bench_options.LauncherArgs = "",
    retry_failed: bench_options.RetryFailed = False,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs; train nothing.")
    ] = False,
    out_path: options.Out = None,
    open_page: options.Open = False,
    json: options.Json = False,
    markdown: bench_options.Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Test the referee: placebo comparisons and planted effects.

    Trains a model against itself with other initial weights, where any verdict is false, and
    against changes known to help or to hurt. Interrupt it at any time: the same command resumes.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.bench.compare import controls as bench
    from holo_cli.experiment.launchers import Launcher
    from holo_cli.experiment.runner import RunOptions, execute

    plan, name = bench_options.read_plan(
        preset, plan_file, DEFAULT_PLAN, bench.named_plan, bench.read_plan
    )
    own = options.given(campaigns=campaigns, campaign_seeds=seeds)
    plan = plan.changed(options.given(data=data), own, sets or ())
    rows = out_path if report_only else None
    text = bench_options.data_or_only(plan.shared.data, out, reported=rows, kind=bench.KIND)
    plan = plan.changed({"data": text}, {})
    page = out_path or BENCH / f"controls-{name}-{Path(plan.shared.data).name}.html"
    where = Launcher.of(launcher, launcher_args)
    side_by_side = bench_options.jobs_of(jobs, where)
    chosen = RunOptions(page, side_by_side, retry_failed, launcher=where, report_only=report_only)
    opened = bench.open_controls(plan, chosen)
    _announce(opened, out)
    if dry_run:
        out.document({"runs": [run.label() for run in opened.todo()]})
        return
    if not report_only:
        execute(opened, chosen, notify=out.note, on_event=bench_options.ProgressPrinter(out))
    _report(opened, page, open_page, out)


def _announce(controls: Controls, out: Output) -> None:
    plan, described = controls.controls, controls.described[controls.base]
    steps = controls.configs[controls.base].training.steps
    out.note(
        f"Controls on {controls.data.path}: {controls.base} ({count(described.parameters)} "
        f"parameters, {counted(steps, 'step')}), {counted(plan.campaigns, 'placebo campaign')} of "
        f"{counted(plan.campaign_seeds, 'seed')}; planted: "
        f"{', '.join((*plan.helps, *plan.hurts)) or 'none'}."
    )
    out.note(f"{counted(controls.left(), 'run')} to do.")


def _report(controls: Controls, page: Path, open_page: bool, out: Output) -> None:
    from holo_cli.bench.compare.controls_report import (
        findings,
        summarise_controls,
        table,
        write_page,
    )

    summary = summarise_controls(controls)
    nbytes = write_page(controls, summary, page)
    out.table(*table(summary))
    out.text("")
    found = findings(summary)
    out.sentences(found)
    document = {
        "title": controls.controls.shared.title,
        "data": controls.data.path,
        **summary.to_dict(),
        "findings": found,
    }
    bench_options.finish(document, controls.rows, page, nbytes, open_page, out)
