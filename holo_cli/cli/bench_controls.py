"""`holo bench controls`: does the comparison find what is there, and nothing that is not?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import bench_options, complete, options
from holo_cli.cli.output import count, duration, size

if TYPE_CHECKING:
    from holo_cli.bench.compare.controls import Controls, ControlsPlan
    from holo_cli.cli.output import Output

DEFAULT_PLAN = "small"


def controls(
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help=f"Plan to run.  [{DEFAULT_PLAN}]"),
    ] = None,
    plan_file: bench_options.PlanFile = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="Prepared set, by name or path (default: the plan's, or the only one).",
            autocompletion=complete.prepared,
        ),
    ] = None,
    sets: bench_options.Sets = None,
    campaigns: Annotated[
        int | None, typer.Option("--campaigns", metavar="N", help="Placebo campaigns.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="Seeds of a placebo campaign.")
    ] = None,
    jobs: bench_options.Jobs = 1,
    retry_failed: bench_options.RetryFailed = False,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run; train nothing.")
    ] = False,
    out_path: options.Out = None,
    open_page: bench_options.Open = False,
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

    bench_options.one_plan(preset, plan_file)
    name = plan_file.stem if plan_file is not None else preset or DEFAULT_PLAN
    plan = bench.read_plan(plan_file) if plan_file is not None else bench.named_plan(name)
    own = options.given(campaigns=campaigns, campaign_seeds=seeds)
    plan = _with_data(plan.changed(options.given(data=data), own, sets or ()), out)
    page = out_path or Path("bench") / f"controls-{name}-{Path(plan.shared.data).name}.html"
    opened = bench.open_controls(plan, page, retry_failed=retry_failed)
    _announce(opened, out)
    if dry_run:
        out.document({"runs": [run.label() for run in opened.todo()]})
        return
    if not report_only:
        from holo_cli.cli.bench_progress import Watch

        bench.run(opened, page, jobs=jobs, say=out.note, watch=Watch(out))
    _report(opened, page, out)
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _with_data(plan: ControlsPlan, out: Output) -> ControlsPlan:
    if plan.shared.data:
        return plan
    from holo_cli.cli import train_data

    return plan.changed({"data": str(train_data.only_prepared(out))}, {})


def _announce(controls: Controls, out: Output) -> None:
    plan, described = controls.controls, controls.described[controls.base]
    steps = controls.configs[controls.base].training.steps
    out.note(
        f"Controls on {controls.data.path}: {controls.base} ({count(described.parameters)} "
        f"parameters, {steps} steps), {plan.campaigns} placebo campaigns of "
        f"{plan.campaign_seeds} seeds; planted: {', '.join((*plan.helps, *plan.hurts)) or 'none'}."
    )
    out.note(f"{controls.left()} runs to do.")


def _report(controls: Controls, page: Path, out: Output) -> None:
    from holo_cli.bench.compare.controls_page import write_page
    from holo_cli.bench.compare.controls_summary import sentences, summarise_controls, table

    summary = summarise_controls(controls)
    nbytes = write_page(controls, summary, page)
    out.table(*table(summary))
    out.text("")
    found = sentences(summary)
    out.sentences(found)
    rows = list(controls.rows)
    machine: dict[str, Any] = next((row["machine"] for row in reversed(rows)), {})
    bench_options.machine_of(machine, out)
    out.document(
        {
            "title": controls.controls.shared.title,
            "data": controls.data.path,
            **summary.to_dict(),
            "findings": found,
            "rows": [
                {k: v for k, v in row.items() if k not in ("curve", "train_curve")} for row in rows
            ],
            "machine": machine,
            "page": page,
            "bytes": nbytes,
            "rows_file": controls.rows.path,
        }
    )
    seconds = sum(row.get("train_seconds", 0.0) for row in rows)
    wrote = f"Wrote {page} ({size(nbytes)}) from {duration(seconds)} of training in all."
    out.end(wrote, "open it in a browser")
