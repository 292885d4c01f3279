"""`holo serve`: models behind an HTTP interface of OpenAI's form."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from holo_cli.inference.generation.loaded_model import LoadedModel

KEY_VARIABLE = "HOLO_API_KEY"


def serve(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            "-c",
            metavar="NAME",
            help="Checkpoint, as a path or a run's name (default: the newest). May be repeated.",
            autocompletion=complete.runs,
        ),
    ] = None,
    model: options.ModelFile = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen at; one beyond this machine needs --api-key.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", min=0, max=65535, help="Port to listen at; 0 takes a free one."
        ),
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="Key that requests must have (default: none; also HOLO_API_KEY, which other "
            "users of the machine cannot see).",
        ),
    ] = None,
    rows: Annotated[
        int,
        typer.Option(
            "--batch-size", metavar="N", min=1, max=4096, help="Texts to write at the same time."
        ),
    ] = 32,
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            metavar="N",
            min=1,
            max=100_000,
            help="Texts that may wait; further requests are answered with 429.",
        ),
    ] = 256,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens",
            metavar="N",
            min=1,
            max=10**6,
            help="Most tokens that a request may ask for.",
        ),
    ] = 4096,
    memory_budget: Annotated[
        int | None,
        typer.Option(
            "--memory-budget",
            metavar="MB",
            min=1,
            help="Megabytes for the weights of loaded models (default: unlimited).",
        ),
    ] = None,
    prefix_cache: Annotated[
        int,
        typer.Option(
            "--prefix-cache",
            metavar="MB",
            min=0,
            help="Megabytes for the states of conversations, for each model; 0 keeps none.",
        ),
    ] = 256,
    grace: Annotated[
        int,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            min=0,
            max=86_400,
            help="Time for running requests to finish when the server is stopped.",
        ),
    ] = 30,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weights: options.Weights = None,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Serve models over HTTP, with web pages.

    The API is in the form of OpenAI's.

    The address without /v1, opened in a browser, is a chat page.

    Ctrl-C stops the server: running requests are finished first.
    """
    out = Output(verbosity=verbosity)
    from holo_cli.cli.compute import torch_dtype, weights_kind
    from holo_cli.inference.generation.loaded_model import load
    from holo_cli.serve.server import Server
    from holo_cli.serve.settings import MEGABYTE, ServeSettings

    kind, form = torch_dtype(dtype), weights_kind(weights)

    def load_from(path: Path) -> LoadedModel:
        return load(path, device=device or "auto", dtype=kind, weights=form)

    settings = ServeSettings(
        host=host,
        port=port,
        key=api_key if api_key is not None else os.environ.get(KEY_VARIABLE, ""),
        rows=rows,
        queue=queue,
        max_tokens=max_tokens,
        budget=None if memory_budget is None else memory_budget * MEGABYTE,
        prefix_bytes=prefix_cache * MEGABYTE,
        grace=grace,
    )
    checkpoints = checkpoint or _newest()
    server = Server(settings, checkpoints, load_from)

    def ready() -> None:
        names = ", ".join(server.pool.entries)
        out.text(f"{server.address}/v1")
        if names:
            out.note(f"Serving {names}. Ctrl-C stops the server.")
        else:
            out.note("There is no checkpoint yet: only the pages of runs are served.")
        out.note(f"Web pages: {server.address}/")

    server.run_until_stopped(ready)
    out.note("The server has stopped.")


def _newest() -> list[str | None]:
    """The newest checkpoint, by None; nothing where there are only runs to watch."""
    from holo_cli.checkpoint.find import known_runs
    from holo_cli.checkpoint.runs import LOG
    from holo_cli.paths import RUNS

    return [] if not known_runs() and any(RUNS.glob(f"*/{LOG}")) else [None]
