"""`holo bench recall`: which model recalls what it has read?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import bench_options, options, table_layout
from holo_cli.cli.output import count, duration, size
from holo_cli.paths import BENCH
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.bench.recall.plan import RecallPlan
    from holo_cli.bench.recall.run import Recall, RecallScore
    from holo_cli.cli.output import Output

DEFAULT_PLAN = "small"


def recall(
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="A,B,...",
            help="Models, or entries of the plan (default: all entries).",
        ),
    ] = None,
    variants: bench_options.Variants = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="A,B,...", help="Tasks of the plan (default: all)."),
    ] = None,
    preset: Annotated[str | None, bench_options.plan_preset(DEFAULT_PLAN)] = None,
    plan_file: bench_options.PlanFile = None,
    sets: bench_options.Sets = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="Runs per entry, task and rate.")
    ] = None,
    steps: options.Steps = None,
    jobs: bench_options.Jobs = None,
    launcher: bench_options.LauncherName = "local",
    launcher_args: bench_options.LauncherArgs = "",
    retry_failed: bench_options.RetryFailed = False,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs left and their time; train nothing.")
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
    """Train models on memory tasks and test what they recall.

    Associative recall, copying, induction, automata, several hops, a needle in a story and more,
    also at lengths never trained on. Interrupt it at any time: the same command resumes.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.bench.recall.plan import named_plan
    from holo_cli.bench.recall.plan import read_plan as read
    from holo_cli.bench.recall.run import fast_format, open_recall
    from holo_cli.experiment.launchers import Launcher
    from holo_cli.experiment.runner import RunOptions, execute
    from holo_cli.experiment.time_estimate import format_note

    plan, name = bench_options.read_plan(preset, plan_file, DEFAULT_PLAN, named_plan, read)
    plan = bench_options.with_variants(plan, models, variants)
    shared = {"training.steps": steps, "training.device": device, "training.dtype": dtype}
    plan = _changed(plan, options.given(**shared), sets or [], seeds)
    if tasks is not None:
        plan = plan.select_tasks(bench_options.names(tasks))
    page = out_path or BENCH / f"recall-{name}.html"
    where = Launcher.of(launcher, launcher_args)
    side_by_side = bench_options.jobs_of(jobs, where)
    chosen = RunOptions(page, side_by_side, retry_failed, launcher=where)
    opened = open_recall(plan, chosen)
    if dry_run:
        _show_estimate(opened, out)
        return
    if not report_only:
        out.note(f"{counted(len(opened.todo()), 'run')} to do, of {len(opened.runs)}.")
        if (first := next(iter(opened.todo()), None)) and (
            note := format_note(opened.chosen(first)["dtype"], fast_format(first), opened.rows)
        ):
            out.note(note)
        execute(opened, chosen, notify=out.note, on_event=bench_options.ProgressPrinter(out))
    _report(opened, page, open_page, out)


def _changed(
    plan: RecallPlan, shared: dict[str, object], sets: list[str], seeds: int | None
) -> RecallPlan:
    from holo_cli.experiment.plan import shared_settings

    base = shared_settings(plan.base, shared, sets)
    return replace(plan, base=base, seeds=plan.seeds if seeds is None else seeds)


def _report(recall: Recall, page: Path, open_page: bool, out: Output) -> None:
    from holo_cli.bench.recall.page import findings, write_page

    scores = recall.scores()
    nbytes = write_page(recall, scores, page)
    for spec in recall.plan.tasks:
        _table(recall, [s for s in scores if s.spec == spec], out)
    found = findings(recall, scores)
    out.sentences(found)
    document = {
        "title": recall.plan.title,
        "scores": [score.to_dict() for score in scores],
        "findings": found,
    }
    bench_options.finish(document, recall.rows, page, nbytes, open_page, out)


def _show_estimate(recall: Recall, out: Output) -> None:
    from holo_cli.bench.recall.run import time_left

    found = time_left(recall)
    out.document({"title": recall.plan.title, "estimates": [e.to_dict() for e in found]})
    out.table(
        ("task", "runs", "done", "left", "time left"),
        [
            (e.task, e.runs, e.done, e.left,
             "not known" if e.seconds is None else duration(e.seconds))
            for e in found
        ],
    )  # fmt: skip
    out.note(
        f"{counted(len(recall.entries), 'entry')}, rates "
        f"{', '.join(f'x{r:g}' for r in recall.plan.rates)}, "
        f"{counted(recall.plan.seeds, 'seed')}. Times are for one run at a time, estimated from "
        "finished runs "
        f"({recall.rows.path}). Nothing was trained (--dry-run)."
    )


def _table(recall: Recall, scores: list[RecallScore], out: Output) -> None:
    """One task: entries down, cases across."""
    from holo_cli.bench.recall.page import cases_shown, columns, explained, size_table
    from holo_cli.bench.recall.run import percent

    spec = scores[0].spec
    rows = []
    for entry in recall.entries:
        own = [s for s in scores if s.entry == entry]
        state = own[-1].state_bytes
        rows.append(
            (
                entry,
                count(own[0].parameters),
                *(percent(s.accuracy) for s in own),
                "" if state is None else size(state),
                "; ".join(dict.fromkeys(s.why for s in own if s.why)),
            )
        )
    longest = spec.cases[-1].length
    out.heading(spec.task.title, explained(spec))
    names = ["model", "parameters", *columns(spec), f"state at {longest}", "remarks"]
    if not any(row[-1] for row in rows):
        names, rows = names[:-1], [row[:-1] for row in rows]
    out.table(names, rows, table_layout.WIDTH)
    out.text("")
    if recall.plan.widths:
        for case in cases_shown(spec):
            title = (
                f"{spec.task.title}, {counted(case.length, 'token')} and "
                f"{counted(case.items, 'item')}"
            )
            out.heading(title, "Correct answers at bytes of state.")
            out.table(*size_table(recall, scores, case, size))
            out.text("")
