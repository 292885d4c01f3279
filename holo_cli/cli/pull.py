"""`holo pull`: fetches a ready checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, size
from holo_cli.cli.progress import Counting
from holo_cli.names import quoted
from holo_cli.translation import translate


def pull_ready(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Ready checkpoint (default: list them)."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="PATH",
            help="Another table of checkpoints: a file, or an https address.",
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="Another folder of the table's files, for example a mirror.",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    force: options.Force = False,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Fetch a small checkpoint that talks, or list them.

    An interrupted download continues when the same command is run again.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint.pull import fetch_ready, open_table

    found = open_table(table, offline=offline)
    if name is None:
        rows = [
            (
                one.name,
                size(one.bytes) if one.published else translate("not published yet"),
                one.about,
            )
            for one in found.checkpoints
        ]
        out.document({"checkpoints": [one.model_dump() for one in found.checkpoints]})
        out.table(("name", "size", "about"), rows)
        out.end("", "holo pull NAME")
        return
    try:
        with Counting(out, "Fetching") as progress:
            done = fetch_ready(
                name, table=found, base_url=base_url, offline=offline, force=force,
                progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        out.note("What was fetched is kept: the same command continues there.")
        raise
    shown = done.path.as_posix()
    out.document({"run": done.run, "path": shown, "bytes": done.bytes, "already": done.already})
    out.text(shown)
    if done.resumed:
        out.note("Continued the interrupted download.")
    chat = f"holo chat -c {quoted(done.run)}"
    if done.already:
        out.end(f"{shown} is here already.", chat)
    else:
        out.end(f"{shown} ({size(done.bytes)}) is ready.", chat)
