"""`holo bench brain`: does brain-v2 gain over brain-v1 what was promised?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import bench_options, options, table_layout
from holo_cli.cli.output import duration, size
from holo_cli.errors import UsageError
from holo_cli.paths import BENCH

if TYPE_CHECKING:
    from holo_cli.bench.brain.run import BrainBench
    from holo_cli.cli.output import Output

DEFAULT_PRESET = "small"


def brain(
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Size: small (minutes to half an hour) or tiny (a try that shows nothing).",
        ),
    ] = DEFAULT_PRESET,
    data: bench_options.Data = None,
    steps: options.Steps = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", help="Runs of each model in training and in recall."),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            metavar="N",
            help="Rounds of the speed measurement (default: 5; tiny: 2).",
        ),
    ] = None,
    jobs: bench_options.Jobs = None,
    retry_failed: bench_options.RetryFailed = False,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs left; measure nothing.")
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
    """Compare brain-v2 with brain-v1: speed, memory, decoding, loss and recall of names.

    The aims that were stated for brain-v2 are printed beside the figures, with a verdict each.
    Interrupt it at any time: the same command resumes.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.bench.brain.run import SpeedOptions, named_plans, open_bench, part_page
    from holo_cli.bench.compare.run import KIND as COMPARE
    from holo_cli.experiment.runner import RunOptions
    from holo_cli.experiment.worker_pool import LOCAL_LAUNCHER

    for flag, value in (("--seeds", seeds), ("--repeats", repeats)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, not {value}.")
    plan, recall = named_plans(preset)
    shared = {"training.device": device, "training.dtype": dtype}
    plan = plan.changed(
        options.given(data=data, seeds=seeds),
        options.given(**shared, **{"training.steps": steps}),
    )
    rows = part_page(out_path, "loss") if report_only and out_path is not None else None
    plan = plan.changed(
        {"data": bench_options.data_or_only(plan.data, out, reported=rows, kind=COMPARE)}
    )
    recall = replace(
        recall,
        base={**recall.base, **options.given(**shared)},
        seeds=recall.seeds if seeds is None else seeds,
    )
    page = out_path or BENCH / f"brain-{preset}-{Path(plan.data).name}.html"
    rounds = SpeedOptions(2, 0.2) if preset == "tiny" else SpeedOptions()
    rounds = rounds if repeats is None else replace(rounds, repeats=repeats)
    side_by_side = bench_options.jobs_of(jobs, LOCAL_LAUNCHER)
    chosen = RunOptions(page, side_by_side, retry_failed, report_only=report_only)
    bench = open_bench(plan, recall, chosen, rounds)
    left = bench.left()
    out.note(
        f"To do: {left['speed']} of speed, {left['loss']} of training, {left['recall']} of recall."
    )
    if dry_run:
        out.document({"title": plan.title, "left": left})
        return
    if not report_only:
        bench.run(notify=out.note, on_event=bench_options.ProgressPrinter(out))
    _report(bench, open_page, out)


def _report(bench: BrainBench, open_page: bool, out: Output) -> None:
    from holo_cli.bench.brain.page import COLUMNS, cells, findings, write_page
    from holo_cli.bench.brain.summary import aim_lines

    found = aim_lines(bench)
    nbytes = write_page(bench, found)
    out.table(COLUMNS, cells(found), table_layout.WIDTH)
    sentences = findings(bench, found)
    out.sentences(sentences)
    machine = bench.machine()
    bench_options.machine_of(machine, out)
    out.document(
        {
            "title": bench.experiment.plan.title,
            "data": bench.experiment.data.path,
            "lines": [line.to_dict() for line in found],
            "findings": sentences,
            "left": bench.left(),
            "machine": machine,
            "page": bench.page,
            "bytes": nbytes,
            "rows_file": bench.rows.path,
        }
    )
    trained = [*bench.experiment.rows, *bench.recall.rows]
    seconds = sum(row.get("train_seconds", 0.0) for row in trained)
    wrote = f"Wrote {bench.page} ({size(nbytes)}) from {duration(seconds)} of training in all."
    out.end(wrote, "open it in a browser")
    if open_page:
        bench_options.open_in_browser(bench.page)
