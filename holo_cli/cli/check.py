"""`holo check`: the contract of a model, tested."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import bench_options, complete, options
from holo_cli.errors import CheckError, UsageError, nearest
from holo_cli.names import quoted
from holo_cli.translation import translate
from holo_cli.wording import counted


def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            callback=options.use_model,
            help="Model to check, one of `holo models`, or path/to/mixer.py:ClassName.",
            autocompletion=complete.models,
        ),
    ],
    label: Annotated[
        str | None,
        typer.Option(
            "--case",
            metavar="LABEL",
            help="Check one of the configurations in CASES of the model's reference "
            "(default: all of them).",
        ),
    ] = None,
    json: options.Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables as Markdown, for a paper.")
    ] = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Check that a model keeps the contract.

    Causality, decoding, gradients, exact resuming, learning with and without the mixer, and costs,
    on small shapes. Ends with exit code 1 if a check fails.
    """
    out = bench_options.sink(json, markdown, verbosity)
    from holo_cli.check.cases import cases_of
    from holo_cli.check.contract import CHECKS, FAILED, CheckResult, run_check
    from holo_cli.plugins import is_file
    from holo_cli.registry import find

    shown_name = str(find(model)) if is_file(model) else model
    cases = cases_of(model)
    labels = [case.label for case in cases]
    if label is not None and label not in labels:
        raise UsageError(f"{model} has no case '{label}'.", next_step=nearest(label, labels))
    results: list[CheckResult] = []
    shown = [case for case in cases if label in (None, case.label)]
    for case in shown:
        for item in CHECKS:
            found = run_check(item, case)
            results.append(found)
            out.note(f"{found.case}: {found.check}: {found.result} ({found.seconds:.1f} s)")
    failed = [found for found in results if found.result == FAILED]
    out.document(
        {
            "model": model,
            "passed": not failed,
            "versions": versions(),
            "checks": [found.to_dict() for found in results],
        }
    )
    for case in shown:
        settings = ", ".join(f"{key} {value}" for key, value in case.overrides.items())
        out.heading(f"{shown_name}, case {case.label}", settings or "defaults")
        own = [found for found in results if found.case == case.label]
        out.table(
            ("check", "required", "measured", "result"),
            [(f.check, f.required, f.measured, f.result) for f in own],
        )
        out.text("")
    shape = "2 layers, width 16, 29 tokens, unless the case says otherwise; float64 on the CPU, "
    shape += "float32 in training"
    made = ", ".join(" ".join(pair) for pair in versions().items())
    out.text(f"{translate(shape)}. {made}.")
    if failed:
        first = failed[0]
        more = f" {len(failed) - 1} more failed." if len(failed) > 1 else ""
        raise CheckError(
            f"{model} fails '{first.check}' in case {first.case}: {first.message}.{more}",
            next_step="What each check asks: docs/commands/check.md.",
        )
    out.end(
        f"{model}: {counted(len(results), 'check')}, none failed.",
        f"holo train --model {quoted(shown_name)}",
    )


def versions() -> dict[str, str]:
    """Of holo, torch and Python."""
    from holo_cli.checkpoint.header import library_versions

    return library_versions()
