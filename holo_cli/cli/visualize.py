"""`holo visualize`: shows the inside of a model as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, duration, size
from holo_cli.errors import UsageError
from holo_cli.names import quoted


def _complete(incomplete: str) -> list[str]:
    from holo_cli.visualize import known_pages

    return [page for page in known_pages() if page.startswith(incomplete)]


def visualize(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="Page to draw: coords, attention, training, or a page of the model.",
            autocompletion=_complete,
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Checkpoint (default: the newest); for training: runs.",
            autocompletion=complete.runs,
            show_default=False,
        ),
    ] = None,
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="TEXT", help="Text that the model reads (default: a sample text)."
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="Run to draw on the training page. May be repeated.",
            autocompletion=complete.runs,
        ),
    ] = None,
    out_path: options.Out = None,
    open_page: options.Open = False,
    png: Annotated[
        bool, typer.Option("--png", help="Also save the page as a PNG, with an installed browser.")
    ] = False,
    device: options.Device = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Draw what happens inside a model as a page.

    coords: the position of each token at each layer, in three dimensions.

    attention: the weights with which each token attends to earlier tokens.

    training: the curves and samples of one or several runs.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.visualize import make_page

    if what == "training":
        run = [*(names or ()), *(run or ())] or None
    elif names:
        if len(names) > 1 or checkpoint is not None:
            raise UsageError(
                "A page shows one checkpoint.",
                next_step=f"Try: holo visualize {what} {quoted(names[0])}",
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
        out.note(f"Wrote {result['png']}.")
    out.end(wrote, "" if open_page else "open it in a browser")
