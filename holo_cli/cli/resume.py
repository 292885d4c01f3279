"""`holo resume`: resumes a run exactly where it stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output

MOST = 8  # names of other runs in a note


def resume(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN or CHECKPOINT]",
            help="Run, by name or by the path of a checkpoint (default: the newest unfinished).",
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
    track: options.Track = None,
    shard: options.Shard = None,
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
            "training.tracker": track,
            "training.shard": shard,
            "training.device": device,
            "training.dtype": dtype,
        }
    )
    from holo_cli.cli.progress import TrainingDisplay
    from holo_cli.cli.train import finish
    from holo_cli.inference.generation.samples import sample_text
    from holo_cli.training.run import resume as resume_training

    if name is None:
        name = _newest(steps, out)
    with TrainingDisplay(out) as events:
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


def _newest(steps: int | None, out: Output) -> str | None:
    """The newest unfinished run, with a note that names it and the others; None if there is none,
    which is then an error."""
    from holo_cli.checkpoint.unfinished import unfinished_runs

    found = unfinished_runs(steps=steps)
    if not found:
        return None
    first, *others = found
    out.note(
        f"No run was named: resuming {first.run}, the newest unfinished one (step {first.step} of "
        f"{first.steps})."
    )
    if others:
        names = [f"{run.run} ({run.step}/{run.steps})" for run in others[:MOST]]
        shown = ", ".join([*names, "..."] if len(others) > MOST else names)
        out.note(f"Also unfinished: {shown}")
    return first.run
