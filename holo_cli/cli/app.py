"""The `holo` command: registers one function per command.

Only names and help texts are imported here. Every command imports its library inside its function,
so that `holo --help` and shell completion are fast (tests/test_import_rules.py).

Where things are: help pages and examples in help.py, shared options in options.py, the output sink
in output.py, the table from exceptions to messages and exit codes in errors.py.
"""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import (
    bench,
    chat,
    check,
    compare,
    compress,
    datasets,
    demo,
    eval,
    export,
    generate,
    import_,
    inspect,
    models,
    new_model,
    prepare,
    pull,
    resume,
    runs,
    serve,
    train,
    visualize,
)
from holo_cli.cli.help import App
from holo_cli.cli.options import Debug

app = App(
    pretty_exceptions_enable=False,  # errors.py reports errors
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
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
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train, compare and inspect language models with unusual sequence mixing.

    Start with `holo demo`. `holo COMMAND --help` explains a command.
    """


app.command("demo")(demo.demo)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("models")(models.models)
app.command("check")(check.check)
app.command("new-model")(new_model.new_model)
app.command("datasets")(datasets.datasets)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("pull")(pull.pull_ready)
app.command("compare")(compare.compare)
app.command("compress")(compress.compress)
app.command("decompress")(compress.decompress)
app.command("visualize")(visualize.visualize)
app.command("eval")(eval.evaluate)
app.add_typer(runs.app, name="runs")
app.add_typer(bench.app, name="bench")
