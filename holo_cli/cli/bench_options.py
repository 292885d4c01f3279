"""The options that the bench commands share, and the sink they write to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from holo_cli import registry
from holo_cli.cli.output import Output
from holo_cli.errors import UsageError

Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME=MODEL,KEY=VALUE,...",
        help="A model with other settings. May be repeated.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a config key for all entries. May be repeated."
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="Tables and findings as Markdown, with the machine.")
]

# -- of those that train: compare and recall ------------------------------------------------------

PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Your plan file (TOML).")
]
Jobs = Annotated[
    int, typer.Option("--jobs", metavar="N", help="Runs side by side, sharing the cores.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Train nothing: report what was done so far.")
]


def sink(json: bool, markdown: bool, verbosity: bool | None) -> Output:
    """Where the command writes. Raises UsageError for two kinds of result at once."""
    if json and markdown:
        raise UsageError("--json and --markdown both say how to print.", next_step="Leave one out.")
    return Output(json=json, markdown=markdown, verbosity=verbosity)


def models(text: str | None) -> list[str]:
    """The models and entries that a person named; a class in a file may be run from here on."""
    return [registry.use(name) for name in names(text)]


def names(text: str | None) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def one_plan(preset: str | None, file: Path | None) -> None:
    """Raises UsageError where two plans are named."""
    if preset is not None and file is not None:
        raise UsageError("--preset and --plan both name a plan.", next_step="Leave one out.")


def chosen(models: Sequence[str], more: Sequence[str]) -> list[str]:
    """The entries asked for: those named, then the variants that are not among them."""
    return [*models, *(name for name in more if name not in models)]


def machine_of(machine: Mapping[str, Any], out: Output) -> None:
    """Under --markdown, what the figures above were measured on."""
    if out.markdown and machine:
        from holo_cli.bench.machine import machine_line

        out.text(f"\n{machine_line(machine)}")
