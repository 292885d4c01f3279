"""`holo bench ladder`: does a lead hold with size?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import bench_compare, bench_options, complete, options
from holo_cli.cli.output import count, duration, size
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from holo_cli.bench.ladder.experiment import Ladder
    from holo_cli.bench.ladder.plan import LadderPlan
    from holo_cli.bench.ladder.summary import Axis
    from holo_cli.cli.output import Output

DEFAULT_PLAN = "small"


def ladder(
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="A,B,...",
            help="Entries of the plan, or models; the first one is the baseline.",
        ),
    ] = None,
    variants: bench_options.Variants = None,
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
    budgets: Annotated[
        str | None,
        typer.Option("--budgets", metavar="X,Y,...", help="Training tokens per parameter."),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option("--rates", metavar="X,Y,...", help="Factors on the learning rates to sweep."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="Runs per entry, rung and budget.")
    ] = None,
    axis: Annotated[
        str, typer.Option("--axis", metavar="WHAT", help="compute, tokens or parameters.")
    ] = "compute",
    ahead: Annotated[
        float | None,
        typer.Option("--ahead", metavar="X", help="Extrapolate to X times the largest compute."),
    ] = None,
    jobs: bench_options.Jobs = 1,
    retry_failed: bench_options.RetryFailed = False,
    redo: Annotated[
        list[str] | None,
        typer.Option("--redo", metavar="ENTRY", help="Run an entry again. May be repeated."),
    ] = None,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs and their sizes; train nothing.")
    ] = False,
    out_path: options.Out = None,
    open_page: bench_options.Open = False,
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
    from holo_cli.bench.ladder import experiment as bench

    plan, name = _plan(models, variants, preset, plan_file)
    shared = {"training.device": device, "training.dtype": dtype}
    numbers = bench_compare.numbers
    plan = plan.changed(
        options.given(
            data=data, seeds=seeds, rates=None if rates is None else numbers("--rates", rates)
        ),
        options.given(
            ahead=ahead, budgets=None if budgets is None else numbers("--budgets", budgets)
        ),
        options.given(**shared),
        sets or (),
    )
    chosen_axis = _axis(axis)
    plan = _with_data(plan, out)
    page = out_path or Path("bench") / f"ladder-{name}-{Path(plan.shared.data).name}.html"
    chosen = bench.Options(page, jobs, retry_failed, tuple(redo or ()))
    opened = bench.open_ladder(plan, chosen)
    if dry_run:
        _sizes(opened, out)
        return
    _announce(opened, out)
    if not report_only:
        from holo_cli.cli.bench_progress import Watch

        bench.run(opened, chosen, say=out.note, watch=Watch(out))
    _report(opened, chosen_axis, page, out)
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _plan(
    models: str | None, variants: list[str] | None, preset: str | None, file: Path | None
) -> tuple[LadderPlan, str]:
    """The plan as the flags choose it, and a name for its page."""
    from holo_cli.bench.experiment.plan import parse_variant
    from holo_cli.bench.ladder.plan import named_plan, read_plan

    bench_options.one_plan(preset, file)
    plan = read_plan(file) if file is not None else named_plan(preset or DEFAULT_PLAN)
    more = [parse_variant(text) for text in variants or ()]
    plan = plan.with_entries(more)
    if models is not None:
        own = [entry.name for entry in more]
        plan = plan.select(bench_options.chosen(bench_options.models(models), own))
    return plan, file.stem if file is not None else preset or DEFAULT_PLAN


def _axis(text: str) -> Axis:
    from holo_cli.bench.ladder.summary import AXES

    for name in AXES:
        if text == name:
            return name
    raise UsageError(f"There is no axis '{text}'.", next_step=f"Use one of: {', '.join(AXES)}.")


def _with_data(plan: LadderPlan, out: Output) -> LadderPlan:
    if plan.shared.data:
        return plan
    from holo_cli.cli import train_data

    return plan.changed({"data": str(train_data.only_prepared(out))}, {})


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
            epochs = f", {experiment.epochs:.1f} epochs" if experiment.epochs > 1 else ""
            out.note(
                f"  {rung.name} ({count(rung.parameters)} parameters), {budget:g} tokens per "
                f"parameter: {count(experiment.tokens)} tokens in {steps} steps{epochs}; {rates}"
            )
    left = ladder.left()
    out.note(f"{'About ' if left else ''}{left} runs to do.")


def _sizes(ladder: Ladder, out: Output) -> None:
    """--dry-run: the runs that would be made."""
    from holo_cli.bench.ladder.experiment import sizes

    found = sizes(ladder)
    columns = ("rung", "budget", "entry", "parameters", "width", "steps", "tokens", "epochs",
               "FLOPs")  # fmt: skip
    rows = [
        (
            row["rung"], f"{row['tokens_per_parameter']:g}", row["entry"],
            count(row["parameters"]), row["width"], row["steps"], count(row["tokens"]),
            f"{row['epochs']:.2f}", f"{row['train_flops']:.2e}",
        )
        for row in found
    ]  # fmt: skip
    out.table(columns, rows)
    flops = ladder.plan.shared.seeds * sum(row["train_flops"] for row in found)
    _announce(ladder, out)
    out.note(f"The reported runs need {flops:.1e} FLOPs in all; sweeps come on top.")
    out.document({"sizes": found, "train_flops": flops, "runs_left": ladder.left()})


def _report(ladder: Ladder, axis: Axis, page: Path, out: Output) -> None:
    from holo_cli.bench.ladder.page import write_page
    from holo_cli.bench.ladder.summary import summarise_ladder
    from holo_cli.bench.ladder.words import curves_table, rungs_table, sentences, to_dict

    summary = summarise_ladder(ladder, axis)
    nbytes = write_page(ladder, summary, page)
    for budget, tracks in summary.budgets.items():
        out.heading(f"{budget:g} tokens per parameter")
        out.table(*rungs_table(tracks, summary.base))
        if any(track.fitted for track in tracks):
            out.text("")
            out.table(*curves_table(tracks, summary.ahead))
        out.text("")
    found = sentences(summary)
    out.sentences(found)
    rows = list(ladder.rows)
    machine: dict[str, Any] = next((row["machine"] for row in reversed(rows)), {})
    bench_options.machine_of(machine, out)
    out.document(
        {
            "title": ladder.plan.shared.title,
            "data": ladder.data.path,
            "axis": axis,
            "ahead": summary.ahead,
            "entries": to_dict(summary),
            "findings": found,
            "rows": [
                {k: v for k, v in row.items() if k not in ("curve", "train_curve")} for row in rows
            ],
            "machine": machine,
            "page": page,
            "bytes": nbytes,
            "rows_file": ladder.rows.path,
        }
    )
    seconds = sum(row.get("train_seconds", 0.0) for row in rows)
    wrote = f"Wrote {page} ({size(nbytes)}) from {duration(seconds)} of training in all."
    out.end(wrote, "open it in a browser")
