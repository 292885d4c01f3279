"""`holo resume`: goes on exactly where a run stopped."""

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
            help="A run's name, or a path; left out: the newest.",
            autocompletion=complete.runs,
        ),
    ] = None,
    model: options.ModelFile = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Go on under another name.")
    ] = None,
    steps: options.Steps = None,
    stop_at: options.StopAt = None,
    eval_every: options.EvalEvery = None,
    target_loss: options.TargetLoss = None,
    time_limit: options.TimeLimit = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.JsonLines = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Go on exactly where a run stopped.

    Weights, optimizer, schedule, data position and random state are those of the moment it
    stopped. --steps extends the schedule; a run that is done needs it.
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
            events=events,
            sampler=sample_text,
        )
    finish(done, out)
