"""`holo bench compare`: which model learns this text best, at equal size, and is it sure?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import bench_options, complete, options, table_layout
from holo_cli.cli.output import count, duration, size
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from holo_cli.bench.experiment.experiment import Experiment
    from holo_cli.bench.experiment.plan import Plan
    from holo_cli.bench.experiment.result_log import Row
    from holo_cli.cli.output import Output

DEFAULT_PLAN = "1m"


def compare(
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="A,B,...",
            help="Models or entries of the plan; the first is the baseline. 'all' runs every "
            "entry of the plan (default: the plan's main entries).",
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
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="WHAT",
            help="What is held equal: parameters, active (parameters that one token uses), "
            "time or none (default: the plan's).",
        ),
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option(
            "--parameters", metavar="N", help="Parameters to match; 0 takes the first entry's."
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option("--rates", metavar="X,Y,...", help="Factors on the learning rates to sweep."),
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
            help="The reported runs have seeds N, N + 1, ...; seeds that were not used before "
            "confirm a result (default: the plan's, 1).",
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
    jobs: bench_options.Jobs = 1,
    retry_failed: bench_options.RetryFailed = False,
    redo: Annotated[
        list[str] | None,
        typer.Option("--redo", metavar="ENTRY", help="Run an entry again. May be repeated."),
    ] = None,
    report_only: bench_options.ReportOnly = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run and how long it takes.")
    ] = False,
    power: Annotated[
        float | None,
        typer.Option(
            "--power",
            metavar="X",
            help="Train nothing: how many seeds does a difference of X nats per token need?",
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
    open_page: bench_options.Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: bench_options.Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Train models on the same text: which is better, how surely?

    Each entry gets its own sweep of the learning rate and then several seeds. Interrupt it at any
    time: the same command resumes. Raw rows are in the .jsonl file beside the page.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.bench.compare import run as bench
    from holo_cli.bench.compare.summary import summarise

    if tune is not None:
        _check_tune(tune, rates_from)
    plan, name = _plan(models, variants, preset, plan_file)
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
        "rates": None if rates is None else numbers("--rates", rates),
    }
    plan = plan.changed(options.given(**changes), options.given(**shared), sets or ())
    if rates_from is not None:
        plan = plan.with_rates(bench.best_rates(rates_from), str(rates_from))
    plan = _with_data(plan, out)
    page = out_path or Path("bench") / f"compare-{name}-{Path(plan.data).name}.html"
    if power is not None or power_from is not None:
        _power(power, power_from, page, plan, out)
        return
    chosen = bench.Options(page, jobs, retry_failed, tuple(redo or ()), not report_only)
    experiment = bench.open_experiment(plan, chosen)
    _announce(experiment, out)
    if dry_run:
        from holo_cli.bench.experiment.time_estimate import TimeEstimate

        expected = TimeEstimate(experiment, jobs)
        expected.announce(None, out.note)
        out.document(
            {
                "entries": [line.to_dict() for line in summarise(experiment).lines],
                "estimate": expected.to_dict(),
            }
        )
        return
    if not report_only:
        from holo_cli.cli.bench_progress import Watch

        bench.run(experiment, chosen, say=out.note, watch=Watch(out), estimate=True)
    _report(experiment, page, out)
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _plan(
    models: str | None, variants: list[str] | None, preset: str | None, file: Path | None
) -> tuple[Plan, str]:
    """The plan as the flags choose it, and a name for its page."""
    from holo_cli.bench.experiment.plan import named_plan, parse_variant, read_plan

    bench_options.one_plan(preset, file)
    plan = read_plan(file) if file is not None else named_plan(preset or DEFAULT_PLAN)
    more = [parse_variant(text) for text in variants or ()]
    plan = plan.selected(None if models is None else bench_options.models(models), more)
    return plan, file.stem if file is not None else preset or DEFAULT_PLAN


def _check_tune(trials: int, rates_from: Path | None) -> None:
    if trials < 1:
        raise UsageError(
            f"--tune {trials}: each entry needs at least one trial.",
            next_step="For example: --tune 16; leave it out to sweep the learning rate alone.",
        )
    if rates_from is not None:
        raise UsageError(
            "--tune finds learning rates of its own, and --rates-from names others.",
            next_step="Leave one out.",
        )


def numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{flag} {text}: not numbers.", next_step=f"For example: {flag} 0.5,1,2"
        ) from None


def _with_data(plan: Plan, out: Output) -> Plan:
    if plan.data:
        return plan
    from holo_cli.cli import train_data

    return plan.changed({"data": str(train_data.only_prepared(out))})


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
            f"{count(described.active_parameters)} active; {config.layers} layers, "
            f"{config.width} wide, MLP x{config.mlp_ratio:.3g}{rate}"
        )
    if experiment.tuning is not None:
        for name, space in experiment.tuning.spaces.items():
            knobs = ", ".join(key.rpartition(".")[2] for key in space)
            out.note(f"  {name}: {experiment.tuning.budget} trials over {knobs}")
        for note in experiment.tuning.notes():
            out.note(f"  {note}")
    done = sum(row["status"] == "done" for row in experiment.rows)
    known = f"; {done} done before" if done else ""
    left = experiment.left()
    out.note(f"{'About ' if left else ''}{left} runs to do{known}.")


def _tuned(experiment: Experiment) -> list[dict[str, Any]] | None:
    """For --json: each entry's budget and what it found; None without --tune."""
    if experiment.tuning is None:
        return None
    return [experiment.tuning.result(entry).to_dict() for entry in experiment.plan.entries]


def _report(experiment: Experiment, page: Path, out: Output) -> None:
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
    machine: Row = next((row["machine"] for row in reversed(list(experiment.rows))), {})
    bench_options.machine_of(machine, out)
    document: dict[str, Any] = {
        "title": experiment.plan.title,
        "data": experiment.data.path,
        "entries": [line.to_dict() for line in summary.lines],
        "differences": [difference.to_dict() for difference in summary.differences],
        "findings": sentences,
        "tuning": _tuned(experiment),
        "rows": [
            {k: v for k, v in row.items() if k not in ("curve", "train_curve")}
            for row in experiment.rows
        ],
        "machine": machine,
        "page": page,
        "bytes": nbytes,
        "rows_file": experiment.rows.path,
    }
    out.document(document)
    seconds = sum(row.get("train_seconds", 0.0) for row in experiment.rows)
    wrote = f"Wrote {page} ({size(nbytes)}) from {duration(seconds)} of training in all."
    out.end(wrote, "open it in a browser")
