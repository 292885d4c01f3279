"""`holo resume`: resumes a run exactly where it stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output


def resume(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN or CHECKPOINT]",
            help="Run, by name or by the path of a checkpoint (default: the newest).",
            autocompletion=complete.runs,
        ),
    ] = None,
    model: options.ModelFile = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="Name of the resumed run (default: unchanged)."),
    ] = None,
    steps: options.Steps = None,
    stop_at: options.StopAt = None,
    eval_every: options.EvalEvery = None,
    target_loss: options.TargetLoss = None,
    time_limit: options.TimeLimit = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    force: Annotated[
        bool, typer.Option("--force", help="Resume even if the memory is too small.")
    ] = False,
    json: options.JsonLines = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Resume a run exactly where it stopped.

    Restores weights, optimizer, schedule, data position and random state. A finished run needs
    --steps, which extends its schedule.
    """
    out = Output(json=json, verbosity=verbosity)
    overrides = options.given(
        **{
            "training.eval_every": eval_every,
            "training.target_loss": target_loss,
            "training.time_limit": time_limit,
            "training.device": device,
            "training.dtype": dtype,
        }
    )
    from holo_cli.cli.progress import Events
    from holo_cli.cli.train import finish
    from holo_cli.inference.generation.samples import sample_text
    from holo_cli.training.run import resume as resume_training

    with Events(out) as events:
        done = resume_training(
            name,
            run=run,
            steps=steps,
            stop_at=stop_at,
            overrides=overrides,
            force_memory=force,
            events=events,
            sampler=sample_text,
        )
    finish(done, out)
