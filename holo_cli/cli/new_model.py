"""`holo new-model`: a package with a working mixer, to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output
from holo_cli.names import quoted
from holo_cli.wording import counted


def new_model(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the new model, as in moving-average.")
    ],
    out_path: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Folder to write (default: NAME)."),
    ] = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Create a package for a new mixer.

    The package has a config, a mixer, a reference, a preset and a test. The mixer is a moving
    average that passes `holo check`: replace its formula in mixer.py and reference.py by yours.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.new_model import write_model

    paths = write_model(name, out_path)
    mixer = next(path for path in paths if path.name == "mixer.py").as_posix()
    class_name = "".join(part.capitalize() for part in name.split("-"))
    out.document({"model": f"{mixer}:{class_name}", "files": paths})
    for path in paths:
        out.text(path.as_posix())
    made = quoted(f"{mixer}:{class_name}")
    out.end(f"Wrote {counted(len(paths), 'file')}.", f"holo check {made}")
