"""The `holo` command: registers one function per command and nothing else.

Only names and help texts are imported here. Every command imports its library inside its
function, which keeps `holo --help` and shell completion quick; a test holds this.
"""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import (
    bench,
    chat,
    check,
    datasets,
    demo,
    eval,
    export,
    generate,
    inspect,
    models,
    new_model,
    prepare,
    resume,
    train,
    visualize,
)
from holo_cli.cli.options import Debug

app = typer.Typer(
    rich_markup_mode=None,  # plain help: quick, and the same in every terminal and pipe
    pretty_exceptions_enable=False,  # `errors.py` explains errors
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    epilog="A first tour: holo demo.  Each command has its own --help.",
)


def _version(value: bool) -> None:
    if value:
        from holo_cli import __version__

        typer.echo(f"holo {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A laboratory bench for language models that mix tokens in unusual ways."""


app.command("demo")(demo.demo)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("models")(models.models)
app.command("check")(check.check)
app.command("new-model")(new_model.new_model)
app.command("datasets")(datasets.datasets)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("visualize")(visualize.visualize)
app.command("eval")(eval.evaluate)
app.add_typer(bench.app, name="bench")
