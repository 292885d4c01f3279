"""`holo train`: trains any model with the one training loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output
from holo_cli.errors import UsageError
from holo_cli.imports import no_collections
from holo_cli.names import quoted
from holo_cli.translation import translate

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved
    from holo_cli.training.start_from import Start


def train(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            callback=options.use_model,
            help="Model to train: a name from `holo models`, or path/to/mixer.py:ClassName.",
            autocompletion=complete.models,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME[=WEIGHT]",
            help="Prepared set, by name or path (default: the only one, else the embedded "
            "stories); several of them, for example --data a=0.7 --data b=0.3, are mixed by "
            "weight, or by their tokens.",
            autocompletion=complete.prepared,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN or CHECKPOINT",
            help="Start from the weights, the tokenizer and the settings of another run, with a "
            "new schedule and optimizer.",
            autocompletion=complete.runs,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Model size, one of the model's presets (default: tiny).",
            autocompletion=complete.presets,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Config file (TOML).")
    ] = None,
    sets: options.Sets = None,
    recipe: options.Recipe = None,
    run: options.Run = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    grad_accum: Annotated[
        int | None,
        typer.Option(
            "--grad-accum",
            metavar="N",
            help="Gradient accumulation: forward passes per step (default: from the config).",
        ),
    ] = None,
    context: options.Context = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", metavar="X", help="Peak learning rate (default: from the config)."),
    ] = None,
    eval_every: options.EvalEvery = None,
    target_loss: options.TargetLoss = None,
    time_limit: options.TimeLimit = None,
    stop_at: options.StopAt = None,
    grad_checkpoint: Annotated[
        bool | None,
        typer.Option(
            "--grad-checkpoint/--no-grad-checkpoint",
            help="Gradient checkpointing: recompute activations to save memory, at the cost of "
            "time.",
        ),
    ] = None,
    compile_: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the model with torch.compile."),
    ] = None,
    track: options.Track = None,
    shard: options.Shard = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the config and the estimated memory, without training."
        ),
    ] = False,
    seed: options.Seed = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    force: options.ForceRun = False,
    json: options.JsonLines = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Train a model.

    Ctrl-C saves everything, and `holo resume` resumes exactly there. Settings come from the
    recipe, the preset, --config, HOLO_* environment variables, --set and options; later ones
    override earlier ones. With --from, the settings of that checkpoint take the place of recipe and
    preset.
    """
    out = Output(json=json, verbosity=verbosity)
    flags = {
        **_data_keys(data),
        "model.context": context,
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.grad_accum": grad_accum,
        "training.lr": lr,
        "training.eval_every": eval_every,
        "training.target_loss": target_loss,
        "training.time_limit": time_limit,
        "training.grad_checkpoint": grad_checkpoint,
        "training.compile": compile_,
        "training.tracker": track,
        "training.shard": shard,
        "training.seed": seed,
        "training.device": device,
        "training.dtype": dtype,
    }
    origin: Start | None = None
    if start is None:
        from holo_cli.config.resolve import resolve

        resolved = resolve(model, preset, recipe, config, sets or (), flags)
    else:
        from holo_cli.config.resolve import resolve_from
        from holo_cli.training.start_from import open_start

        _check_start(preset, recipe)
        origin = open_start(start, model)
        shown = origin.path.as_posix()
        resolved = resolve_from(origin.stored(), shown, config, sets or (), flags)
    if resolved.provenance["preset"] == "default" and resolved.preset:
        out.note(f"No --preset was given: using the preset '{resolved.preset}'.")
    if dry_run:
        from holo_cli.cli.dry_run import show

        show(resolved, out, force=force)
        return
    from holo_cli.cli import schedule, train_data
    from holo_cli.cli.expectations import expecting
    from holo_cli.cli.progress import TrainingDisplay

    with no_collections():
        from holo_cli.inference.generation.samples import sample_text
        from holo_cli.training.restart import restarted
        from holo_cli.training.run import resume as resume_training
        from holo_cli.training.run import train as run_training

    if restarted(run):
        assert run is not None
        with TrainingDisplay(out) as events:
            done = resume_training(
                run, stop_at=stop_at, force_memory=force, events=events, sampler=sample_text
            )
        finish(done, out)
        return
    resolved = train_data.choose(resolved, out)
    resolved, seconds = schedule.fitted(resolved, out, force=force)
    note_settings(resolved, out)
    with TrainingDisplay(out) as events:
        done = run_training(
            resolved, run=run, stop_at=stop_at, force=force, force_memory=force,
            events=expecting(events, resolved.data, out), sampler=sample_text,
            start=origin, expected_seconds=seconds,
        )  # fmt: skip
    finish(done, out)


def _data_keys(data: list[str] | None) -> dict[str, object]:
    """Both keys, so that one of them never meets the other of an earlier layer."""
    if not data:
        return {}
    return {"data.path": data[0] if len(data) == 1 else "", "data.sets": data * (len(data) > 1)}


def _check_start(preset: str | None, recipe: str | None) -> None:
    for option, value in (("--preset", preset), ("--recipe", recipe)):
        if value is not None:
            raise UsageError(
                f"{option} has no effect beside --from: the checkpoint gives the settings.",
                next_step=f"Leave {option} out; --set KEY=VALUE changes single settings.",
            )


def note_settings(resolved: Resolved, out: Output) -> None:
    """With -v: the settings that differ from the defaults, each with its source."""
    if out.verbose:
        for key, value in resolved.values().items():
            if resolved.provenance.get(key, "default") != "default":
                out.note(f"{key} = {value} ({resolved.provenance[key]})")


def finish(done: dict[str, object], out: Output) -> None:
    """The final output of train and resume."""
    from holo_cli.cli.progress import training_results
    from holo_cli.plugins import option

    if not out.json:
        for line in training_results(done):
            out.text(translate(line))
    best = done.get("best") or done.get("last")
    if done.get("only_continues", True):
        out.end("", f'holo generate{option()} -c {quoted(str(best))} --prompt "..."')
    else:
        out.end("", f"holo chat{option()} -c {quoted(str(best))}")
