"""`holo visualize`: a look inside a model, as one page that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, duration, size
from holo_cli.errors import UsageError


def _complete(incomplete: str) -> list[str]:
    from holo_cli.visualize import known_pages

    return [page for page in known_pages() if page.startswith(incomplete)]


def visualize(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="coords, attention, training, or a page of the model's own.",
            autocompletion=_complete,
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="The checkpoint; for training: runs.",
            autocompletion=complete.runs,
            show_default=False,
        ),
    ] = None,
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="What the model reads.")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="For training: a run to draw. May be repeated.",
            autocompletion=complete.runs,
        ),
    ] = None,
    out_path: options.Out = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    png: Annotated[
        bool, typer.Option("--png", help="Also a picture of it, by an installed browser.")
    ] = False,
    device: options.Device = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Draw what happens inside a model, as one page.

    coords: where each layer puts each token, in three dimensions.
    attention: which earlier tokens each token looks at.
    training: curves and samples of one or several runs.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.visualize import make_page

    if what == "training":
        run = [*(names or ()), *(run or ())] or None
    elif names:
        if len(names) > 1 or checkpoint is not None:
            raise UsageError(
                "A page shows one checkpoint.", next_step=f"holo visualize {what} {names[0]}"
            )
        checkpoint = names[0]
    more = options.given(runs=run, png=png or None)
    result = make_page(what, checkpoint, text, out_path, device=device or "auto", **more)
    out.document(result)
    out.text(str(result["page"]))
    if open_page:
        import webbrowser

        webbrowser.open(Path(result["page"]).resolve().as_uri())
    wrote = f"Wrote {result['page']} ({size(result['bytes'])}, {duration(result['seconds'])})."
    if "png" in result:
        wrote += f" Picture: {result['png']}."
    out.end(wrote, "holo visualize --help" if open_page else "open it in a browser")
