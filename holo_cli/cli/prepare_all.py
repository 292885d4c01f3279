"""`holo prepare all`: every dataset of the table, each as a set of its own.

What cannot be had (no network, terms that were not accepted, a language that a dataset lacks) is
named at the end, with the exit code; the rest is kept. The same command later makes what is
missing: complete sets stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from holo_cli.cli.output import Output, count, size
from holo_cli.errors import HoloError, UsageError
from holo_cli.paths import DATA

ALL = "all"
BUDGET = 50_000_000  # bytes of text of each dataset, unless a limit is given
LANGUAGES = ("ko", "en")  # of datasets that have to be told which


def asked(names: list[str] | None, source: list[str] | None) -> bool:
    """Whether the names mean every dataset. Raises UsageError for `all` among other names."""
    if source or ALL not in (names or ()):
        return False  # with --source it is a name like any other
    if len(names or ()) > 1:
        raise UsageError(
            "'all' means every dataset, so it cannot be combined with other names.",
            next_step="Use it alone: holo prepare all",
        )
    return True


def prepare_all(out: Output, given: dict[str, Any], *, offline: bool, force: bool) -> None:
    """Prepare every dataset; exits with 1 if one of them failed. Raises UsageError."""
    from holo_cli.cli.progress import Preparing
    from holo_cli.data.prepare import prepare as library
    from holo_cli.data.sources.table import ROWS

    for option in ("subset", "mix", "shard"):
        if option in given:
            raise UsageError(
                f"--{option} cannot be combined with 'all'.",
                next_step="Prepare that dataset by its name.",
            )
    folder = Path(given.pop("out", DATA))
    if not {"max_bytes", "max_docs"} & given.keys():
        out.note(f"Taking at most {size(BUDGET)} of each dataset; --max-bytes changes that.")
        given["max_bytes"] = BUDGET
    made: list[library.PrepareResult] = []
    failed: dict[str, str] = {}
    for row in ROWS:
        options = dict(given)
        if row.options:  # it has to be told the language
            options.setdefault("lang", list(LANGUAGES))
        out.note(f"Preparing {row.name}.")
        try:
            with Preparing(out) as progress:
                result = library.prepare(
                    [row.name],
                    out=folder / row.name,
                    offline=offline,
                    force=force,
                    progress=progress,
                    notice=out.note,
                    warn=out.warn,
                    **options,
                )
        except HoloError as error:
            failed[row.name] = error.message
            out.warn(f"{row.name} was not prepared: {error.message}")
            continue
        made.append(result)
        for warning in result.warnings:
            out.warn(warning)
    out.document({"sets": [result.to_dict() for result in made], "failed": failed})
    out.table(
        ("set", "train tokens", "text"),
        [(r.data.as_posix(), count(r.tokens["train"]), size(sum(r.bytes.values()))) for r in made],
    )
    if failed:
        names = ", ".join(failed)
        out.warn(f"{len(failed)} of {len(ROWS)} datasets could not be prepared: {names}.")
        raise typer.Exit(1)
    out.end("", "holo train --model vanilla --data NAME")
