"""`holo visualize`: a look inside a model, as one page that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, duration, size
from holo_cli.errors import UsageError, nearest

PAGES = ("coords", "attention")


def _complete(incomplete: str) -> list[str]:
    return [page for page in PAGES if page.startswith(incomplete)]


def visualize(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="coords or attention.", autocompletion=_complete)
    ],
    checkpoint: options.Checkpoint = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="What the model reads.")
    ] = None,
    out_path: options.Out = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    device: options.Device = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Draw what happens inside a model, as one page.

    coords: where each layer puts each token, in three dimensions.
    attention: which earlier tokens each token looks at.
    """
    out = Output(json=json, verbosity=verbosity)
    if what not in PAGES:
        raise UsageError(f"There is no page '{what}'.", next_step=nearest(what, PAGES))
    from holo_cli.visualize import make_page

    result = make_page(what, checkpoint, text, out_path, device=device or "auto")
    out.document(result)
    out.text(str(result["page"]))
    if open_page:
        import webbrowser

        webbrowser.open(Path(result["page"]).resolve().as_uri())
    wrote = f"Wrote {result['page']} ({size(result['bytes'])}, {duration(result['seconds'])})."
    other = next(page for page in PAGES if page != what)
    out.end(wrote, "open it in a browser" if not open_page else f"holo visualize {other}")
