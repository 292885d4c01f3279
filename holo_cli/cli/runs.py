"""`holo runs`: lists, shows, compares, renames and deletes runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.help import App
from holo_cli.cli.output import Output, is_terminal, size
from holo_cli.errors import UsageError
from holo_cli.names import quoted
from holo_cli.translation import translate
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.checkpoint.runs import RunSummary

MOST = 12  # evaluations shown of one run
UNITS = ((86400 * 2, 86400, "d"), (5400, 3600, "h"), (90, 60, "min"))  # from, seconds, unit

app = App(invoke_without_command=True, no_args_is_help=False)
Name = Annotated[
    str, typer.Argument(metavar="RUN", help="Run, by name.", autocompletion=complete.runs)
]


@app.callback()
def runs(
    context: typer.Context,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """List runs, or show, compare, rename and delete them.

    Runs that are running or can be resumed come first.
    """
    if context.invoked_subcommand is None:
        _list(Output(json=json, verbosity=verbosity))


def _list(out: Output) -> None:
    from holo_cli.checkpoint.runs import UNFINISHED, list_runs

    found = list_runs()
    out.document({"runs": [run.to_dict() for run in found]})
    if not found:
        out.note("There are no runs in this folder yet.")
        out.end("", "holo train --model vanilla")
        return
    out.table(
        ("run", "state", "model", "data", "step", "best loss", "age", "size"),
        [_row(run) for run in found],
    )
    resumable = next((run.run for run in found if run.state == UNFINISHED), None)
    then = f"holo resume {quoted(resumable)}" if resumable else f"holo runs show {found[0].run}"
    out.end("", then)


@app.command("list")
def list_(
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """List the runs of this folder, as `holo runs` does."""
    _list(Output(json=json, verbosity=verbosity))


@app.command("show")
def show(
    name: Name,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Show a run: its state, files and evaluations."""
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint.runs import UNFINISHED, find_run

    run = find_run(name)
    header = run.header
    history = header.history if header else []
    config = header.config if header else {}
    origins = [origin.model_dump() for origin in header.origins] if header else []
    out.document({**run.to_dict(), "config": config, "history": history, "origins": origins})
    out.facts(_facts(run))
    if history:
        out.text("")
        shown = history if verbosity else history[-MOST:]
        out.table(
            ("step", "tokens", "validation loss", "bits per byte"),
            [
                (f"{row['step']:,}", f"{row.get('tokens') or 0:,}", _figure(row.get("val_loss")),
                 _figure(row.get("bpb")))
                for row in shown
            ],
        )  # fmt: skip
        if len(shown) < len(history):
            out.note(
                f"These are the last {len(shown)} of {len(history)} evaluations; -v shows all."
            )
    command = "resume" if run.state == UNFINISHED else "generate -c"
    out.end("", f"holo {command} {quoted(run.run)}" if run.files else "")


@app.command("compare")
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Two or more runs, by name.", autocompletion=complete.runs
        ),
    ],
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Compare runs: what they reached, and the settings in which they differ."""
    out = Output(json=json, verbosity=verbosity)
    if len(names) < 2:
        raise UsageError(
            "A comparison needs two or more runs.", next_step="See: holo runs compare --help"
        )
    from holo_cli.checkpoint.runs import differing, find_run

    found = [find_run(name) for name in names]
    unlike = differing([run.header.config if run.header else {} for run in found])
    out.document({"runs": [run.to_dict() for run in found], "differing": unlike})
    facts = [dict(_facts(run)) for run in found]
    wanted = ("state", "model", "data", "step", "best loss", "best bits per byte", "size")
    out.table(
        ("", *(run.run for run in found)),
        [(translate(key), *(translate(fact.get(key, "")) for fact in facts)) for key in wanted],
        literal=True,
    )
    if unlike:
        out.text("")
        out.table(
            ("setting", *(run.run for run in found)),
            [(key, *map(_setting, values)) for key, values in unlike.items()],
            literal=True,
        )
    else:
        out.note("Their settings are the same.")
    out.end("", f"holo visualize training {' '.join(quoted(run.run) for run in found)}")


@app.command("rename")
def rename(
    old: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name.")],
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Rename a run: its checkpoints, their headers and its log."""
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint.run_files import rename_run
    from holo_cli.checkpoint.runs import find_run

    run = find_run(old)
    made = rename_run(run, new)
    out.document({"run": new, "from": run.run, "files": made})
    out.end(f"Renamed run {run.run} to {new} ({counted(len(made), 'file')}).", "")


@app.command("delete")
def delete(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs, by name.", autocompletion=complete.runs),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete without asking; needed off a terminal.")
    ] = False,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Delete runs: their checkpoints and logs. Asks first, and refuses a run that is training."""
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint.lock import RunLock
    from holo_cli.checkpoint.run_files import delete_run
    from holo_cli.checkpoint.runs import RUNNING, find_run
    from holo_cli.paths import CHECKPOINTS

    found = list({run.run: run for run in map(find_run, names)}.values())
    for run in found:
        if run.state == RUNNING:
            RunLock(CHECKPOINTS, run.run).acquire()  # raises, naming the process
    if not yes:
        _ask(found, out)
    deleted = [path for run in found for path in delete_run(run)]
    nbytes = sum(run.nbytes for run in found)
    out.document({"runs": [run.run for run in found], "deleted": deleted, "bytes": nbytes})
    out.end(f"Deleted {', '.join(run.run for run in found)} ({size(nbytes)}).", "")


def _ask(found: Sequence[RunSummary], out: Output) -> None:
    """Ask on a terminal; raises UsageError elsewhere, and typer.Abort for no."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stderr) or out.json:
        raise UsageError(
            "Deleting asks for confirmation, which needs a terminal.",
            next_step="Add --yes to delete without asking.",
        )
    for run in found:
        out.note(f"{run.run}: {size(run.nbytes)}, step {run.step or 0}, {run.data}")
        for path in [*run.files.values(), *([run.log] if run.log else [])]:
            out.note(f"  {path}")
    question = translate("Delete these files for good?")
    if not typer.confirm(question, default=False, err=True):
        out.note("Nothing was deleted.")
        raise typer.Exit(1)


def _row(run: RunSummary) -> tuple[str, ...]:
    return (
        run.run, run.state, run.model, run.data, _progress(run), _figure(run.best_val),
        age(time.time() - run.updated), size(run.nbytes),
    )  # fmt: skip


def _facts(run: RunSummary) -> list[tuple[str, str]]:
    facts = [
        ("run", run.run),
        ("state", run.state),
        ("model", run.model),
        ("data", run.data),
        ("step", _progress(run)),
        ("best loss", _figure(run.best_val)),
        ("best bits per byte", _figure(run.best_bpb)),
        ("age", age(time.time() - run.updated)),
        ("size", size(run.nbytes)),
        *((kind or "file", str(path)) for kind, path in run.files.items()),
    ]
    if run.header and run.header.origins:
        facts.append(("started from", " <- ".join(o.run for o in reversed(run.header.origins))))
    return [*facts, ("log", str(run.log))] if run.log else facts


def _progress(run: RunSummary) -> str:
    if run.step is None:
        return ""
    return f"{run.step:,}" + (f" / {run.steps:,}" if run.steps else "")


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def _setting(value: Any) -> str:
    return "" if value is None else str(value)


def age(seconds: float) -> str:
    """How long ago, in one unit: 12 s, 5 min, 7 h, 3 d.

    >>> age(12), age(300), age(3600 * 7), age(86400 * 3)
    ('12 s', '5 min', '7 h', '3 d')
    """
    for least, unit, name in UNITS:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0, seconds):.0f} s"
