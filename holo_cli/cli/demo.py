"""`holo demo`: a complete tour in about two minutes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, duration
from holo_cli.names import quoted


def demo(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Model to train: a name from `holo models`.",
            autocompletion=complete.models,
        ),
    ] = "vanilla",
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            help="Approximate training time in seconds (default: 115).",
        ),
    ] = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """A complete tour: prepare data, train, generate, visualize."""
    out = Output(json=json, verbosity=verbosity)
    from holo_cli import demo as tour
    from holo_cli.cli.progress import Preparing, TrainingDisplay

    def show(sample: dict[str, Any]) -> None:
        out.text(f"[{sample['lang']}] {sample['prompt'] + sample['text']}\n")

    # a time that was asked for is kept
    plan = tour.TourPlan(
        model=model, patient=time_limit is None, **options.given(train_seconds=time_limit)
    )
    with Preparing(out) as progress, TrainingDisplay(out.for_people()) as events:
        result = tour.run(plan, say=out.note, progress=progress, events=events, wrote=show)
    out.document(result)
    for page in result["pages"]:
        out.text(page)
    wrote = f"{duration(result['seconds'])}. Wrote {result['data']}, {result['checkpoint']}."
    out.end(wrote, f"holo chat -c {quoted(result['checkpoint'])}")
