"""`holo datasets`: the sources of text that `holo prepare` knows."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, dumps


def datasets(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Source to describe (default: list all).",
            autocompletion=complete.sources,
        ),
    ] = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """List the sources of text, or describe one."""
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.data.sources import datasets_table

    rows = datasets_table(name)
    out.document({"datasets": rows})
    if name is None:
        out.table(
            ("name", "languages", "size", "description"),
            [(r["name"], " ".join(r["languages"]), r["size"], r["description"]) for r in rows],
        )
        out.end("", f"holo datasets {rows[0]['name']}")
        return
    row = rows[0].pop("row")
    facts = [
        (key.replace("_", " "), " ".join(value) if isinstance(value, list | tuple) else value)
        for key, value in rows[0].items()
    ]
    out.facts([*facts, ("example row", dumps(row))])
    out.end("", rows[0]["prepare"])
