"""`holo bench guard`: has anything become slower than the stored baseline?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.bench_options import Markdown, machine_of, sink
from holo_cli.cli.output import duration
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from holo_cli.speed.guard import GuardedRatio

COLUMNS = ("ratio", "baseline", "now", "tolerance", "verdict")


def guard(
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="X", help="Seconds after which no further round begins."),
    ] = 240.0,
    compile_too: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Measure torch.compile as well, which takes the longest to start.",
        ),
    ] = True,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="FILE", help="Baseline to compare with (default: holo's own)."
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Store the measured ratios as the baseline.")
    ] = False,
    json: options.Json = False,
    markdown: Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Measure the main speed ratios and name those that are lower than the stored baseline.

    Ends with exit code 1 if a ratio is below its baseline by more than its tolerance.
    """
    out = sink(json, markdown, verbosity)
    if seconds <= 0:
        raise UsageError(f"--seconds must be above 0, not {seconds:g}.")
    from holo_cli.experiment.machine import describe_machine
    from holo_cli.speed import guard as library

    path = baseline or library.BASELINE
    stored = {} if update else library.read_baseline(path)
    machine = describe_machine()
    if stored and stored.get("machine", {}).get("cpu") != machine["cpu"]:
        cpu = stored.get("machine", {}).get("cpu", "unknown")
        out.note(
            f"The baseline was measured on another processor ({cpu}): a difference may be due to "
            "the machine."
        )
    started = time.monotonic()
    found, failed = library.measure(seconds=seconds, compile_too=compile_too, notify=out.note)
    lines = library.judge(found, failed, stored)
    took = time.monotonic() - started
    out.document(
        {"bench": "guard", "lines": [line.to_dict() for line in lines], "rounds": found,
         "machine": machine, "baseline": path, "seconds": round(took, 1)}
    )  # fmt: skip
    out.table(COLUMNS, [cells(line) for line in lines])
    machine_of(machine, out)
    if update:
        library.write_baseline(path, found)
        out.end(f"Wrote {path}, in {duration(took)}.", "")
        return
    error = library.slower_error(lines)
    if error is not None:
        raise error
    out.end(f"Nothing became slower, in {duration(took)}.", "")


def cells(line: GuardedRatio) -> tuple[str, ...]:
    """A line of the table."""
    now = "–"
    if line.ratio is not None:
        now = f"{line.ratio.median:.3g} ({line.ratio.low:.3g} to {line.ratio.high:.3g})"
    before = "–" if line.before is None else f"{line.before:.3g}"
    return line.name, before, now, f"{line.tolerance:.0%}", line.verdict
