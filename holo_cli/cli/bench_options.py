"""The options that the bench commands share, and how the commands that train open and end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from holo_cli import registry
from holo_cli.cli import complete
from holo_cli.cli.output import Output, duration, size
from holo_cli.errors import UsageError
from holo_cli.names import existing
from holo_cli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from holo_cli.experiment.launchers import Launcher
    from holo_cli.experiment.plan import Entry
    from holo_cli.experiment.result_log import ResultLog

LINE_SECONDS = 30.0  # between progress lines of the runs under way

Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME=MODEL,KEY=VALUE,...",
        help="Add an entry: a model with other settings. May be repeated.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a config key for all entries. May be repeated."
    ),
]
Markdown = Annotated[
    bool,
    typer.Option("--markdown", help="Print tables and findings as Markdown, with the machine."),
]

# -- of the commands that train: compare, ladder, controls and recall -----------------------------

PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Your plan file (TOML).")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help="Prepared set, by name or path (default: the plan's, or the only one).",
        autocompletion=complete.prepared,
    ),
]
Rates = Annotated[
    str | None,
    typer.Option("--rates", metavar="X,Y,...", help="Factors on the learning rates to sweep."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        help="Runs side by side, sharing the cores; on a cluster, runs that it is given at once "
        "(default: 1, on a cluster 64).",
    ),
]
LauncherName = Annotated[
    str,
    typer.Option(
        "--launcher",
        metavar="NAME",
        help="Where the runs are carried out: local, slurm (tasks of a job array) or ray.",
    ),
]
LauncherArgs = Annotated[
    str,
    typer.Option(
        "--launcher-args",
        metavar="TEXT",
        help="Options of sbatch, such as '--partition=gpu --gpus=1', or resources of a Ray task, "
        "such as 'num_gpus=0.25'.",
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")]
Redo = Annotated[
    list[str] | None,
    typer.Option("--redo", metavar="ENTRY", help="Run an entry again. May be repeated."),
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Train nothing; report the runs that are finished.")
]


def plan_preset(default: str) -> Any:
    return typer.Option(
        "--preset", metavar="NAME", help=f"A plan that comes with holo (default: {default})."
    )


def sink(json: bool, markdown: bool, verbosity: bool | None) -> Output:
    """Where the command writes. Raises UsageError for two formats at once."""
    if json and markdown:
        raise UsageError(
            "--json and --markdown are two formats of one output.", next_step="Leave one out."
        )
    return Output(json=json, markdown=markdown, verbosity=verbosity)


def names(text: str) -> list[str]:
    """The names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def models(text: str | None) -> list[str]:
    """The models and entries that a person named; a class in a file may be run from here on.
    Raises UsageError for a text without names."""
    found = names(text or "")
    if text is not None and not found:
        raise UsageError("--models names no model.", next_step="For example: --models vanilla,ngt")
    return [registry.use(name) for name in found]


def numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers between commas. Raises UsageError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{flag} {text}: not numbers.", next_step=f"For example: {flag} 0.5,1,2"
        ) from None


def jobs_of(jobs: int | None, launcher: Launcher) -> int:
    """--jobs, or its default for this launcher. Raises UsageError for less than one."""
    if jobs is not None and jobs < 1:
        raise UsageError(
            f"--jobs must be at least 1, not {jobs}.",
            next_step="Leave it out for one run at a time.",
        )
    from holo_cli.experiment.launchers import CLUSTER_JOBS, LOCAL

    return jobs or (1 if launcher.name == LOCAL else CLUSTER_JOBS)


P = TypeVar("P")


def read_plan(
    preset: str | None,
    file: Path | None,
    default: str,
    named: Callable[[str], P],
    read: Callable[[Path], P],
) -> tuple[P, str]:
    """The plan that --preset or --plan names, and a name for its page."""
    if preset is not None and file is not None:
        raise UsageError("--preset and --plan both name a plan.", next_step="Leave one out.")
    if file is not None:
        return read(existing(file)), file.stem
    return named(preset or default), preset or default


class _HasEntries(Protocol):
    def with_entries(self, more: list[Entry]) -> Any: ...


def with_variants(plan: _HasEntries, asked: str | None, variants: list[str] | None) -> Any:
    """The plan with the variants, and only the entries of --models beside them."""
    from holo_cli.experiment.plan import parse_variant

    more = [parse_variant(text) for text in variants or ()]
    plan = plan.with_entries(more)
    if asked is None:
        return plan
    chosen = models(asked)
    return plan.select([*chosen, *(e.name for e in more if e.name not in chosen)])  # type: ignore[attr-defined]


def data_or_only(data: str, out: Output, *, reported: Path | None = None, kind: str) -> str:
    """The plan's prepared set; or that of the newest rows of a page to report, `reported`, which
    are of `kind`; or the only one that there is."""
    if data:
        return data
    if reported is not None:
        from holo_cli.experiment.result_log import ResultLog, rows_path
        from holo_cli.experiment.stored_text import stored_texts

        if texts := stored_texts(ResultLog(rows_path(reported), kind)):
            return texts[-1].name
    from holo_cli.cli import train_data

    return str(train_data.only_prepared(out))


class ProgressPrinter:
    """Called with the label of a run and each of its events; prints a line now and then."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self._line_at = time.monotonic()

    def __call__(self, run: str, event: dict[str, Any]) -> None:
        if event["event"] == "warning":
            self.out.note(f"{run}: {event['message']}")
        elif event["event"] == "train" and time.monotonic() - self._line_at >= LINE_SECONDS:
            self._line_at = time.monotonic()
            self.out.note(
                f"  {run}: step {event['step']}/{event['steps']}, loss {event['loss']:.4f}"
            )


def note_left(left: int, done: int, out: Output) -> None:
    known = f"; {done} done before" if done else ""
    out.note(f"{'About ' if left else ''}{counted(left, 'run')} to do{known}.")


def machine_of(machine: Mapping[str, Any], out: Output) -> None:
    """Under --markdown, the machine of the figures above."""
    if out.markdown and machine:
        from holo_cli.experiment.machine import machine_line

        out.text(f"\n{machine_line(machine)}")


def finish(
    document: dict[str, Any], rows: ResultLog, page: Path, nbytes: int, open_page: bool, out: Output
) -> None:
    """The end of a command that trains: the machine, the JSON document and the last line."""
    machine = rows.machine()
    machine_of(machine, out)
    out.document(
        document
        | {
            "rows": [
                {k: v for k, v in row.items() if k not in ("curve", "train_curve")} for row in rows
            ],
            "machine": machine,
            "page": page,
            "bytes": nbytes,
            "rows_file": rows.path,
        }
    )
    seconds = sum(row.get("train_seconds", 0.0) for row in rows)
    wrote = f"Wrote {page} ({size(nbytes)}) from {duration(seconds)} of training in all."
    out.end(wrote, "open it in a browser")
    if open_page:
        open_in_browser(page)


def open_in_browser(page: Path) -> None:
    import webbrowser

    webbrowser.open(page.resolve().as_uri())
