"""`holo import`: a model of another project as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, size
from holo_cli.names import quoted


def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of transformers: config.json, model.safetensors, tokenizer.json.",
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="Name of the run (default: the folder's)."),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Import a GPT-2, Llama or Qwen2 of transformers.

    The checkpoint generates, chats and serves, and `holo train --from` continues its training.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint import run_path
    from holo_cli.checkpoint.run_files import check_run_name
    from holo_cli.errors import CheckpointError
    from holo_cli.export.import_folder import import_folder
    from holo_cli.paths import CHECKPOINTS

    name = check_run_name(run or folder.resolve().name)
    path = run_path(CHECKPOINTS, name, "best")
    if not force and (path.exists() or run_path(CHECKPOINTS, name, "last").exists()):
        raise CheckpointError(
            f"There is a run '{name}' already.",
            next_step="Name another one with --run, or replace it with --force.",
        )
    CHECKPOINTS.mkdir(exist_ok=True)
    found = import_folder(folder, path, name)
    shown = path.as_posix()
    out.document({"path": shown, "bytes": found.bytes, "parameters": found.parameters})
    out.text(shown)
    for note in found.notes:
        out.note(note)
    out.end(
        f"Wrote {shown} ({size(found.bytes)}).", f'holo generate -c {quoted(name)} --prompt "..."'
    )
