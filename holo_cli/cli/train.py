"""`holo train`: any model, one loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved


def train(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            callback=options.use_model,
            help="Model to train, one of `holo models`, or path/to/mixer.py:ClassName.",
            autocompletion=complete.models,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="A prepared set, by name or path; left out: the only one, or the stories.",
            autocompletion=complete.prepared,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="A size.  [tiny]", autocompletion=complete.presets
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A TOML file of settings.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting. May be repeated."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="modern or classic.  [modern]",
            autocompletion=complete.recipes,
        ),
    ] = None,
    run: options.Run = None,
    steps: options.Steps = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="Sequences in a forward pass.")
    ] = None,
    grad_accum: Annotated[
        int | None, typer.Option("--grad-accum", metavar="N", help="Forward passes per step.")
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", metavar="N", help="Tokens in a sequence.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="X", help="Peak rate.")] = None,
    eval_every: options.EvalEvery = None,
    target_loss: options.TargetLoss = None,
    time_limit: options.TimeLimit = None,
    stop_at: options.StopAt = None,
    grad_checkpoint: Annotated[
        bool | None,
        typer.Option(
            "--grad-checkpoint/--no-grad-checkpoint",
            help="Less memory for more time: recompute activations.",
        ),
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved config and estimates only.")
    ] = False,
    seed: options.Seed = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    force: options.Force = False,
    json: options.JsonLines = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Train a model.

    Ctrl-C saves everything; holo resume goes on exactly from there. Settings come from the
    recipe, the preset, --config, HOLO_* variables, --set and flags, the later ones winning.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.config.resolve import resolve

    flags = {
        "data.path": data,
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
        "training.seed": seed,
        "training.device": device,
        "training.dtype": dtype,
    }
    resolved = resolve(model, preset, recipe, config, sets or (), flags)
    if resolved.provenance["preset"] == "default" and resolved.preset:
        out.note(f"No --preset: using '{resolved.preset}'.")
    if dry_run:
        from holo_cli.cli.dry_run import show

        show(resolved, out)
        return
    from holo_cli.cli import train_data
    from holo_cli.cli.progress import Events
    from holo_cli.inference.generation.samples import sample_text
    from holo_cli.training.run import train as run_training

    resolved = train_data.choose(resolved, out)
    tell_settings(resolved, out)
    with Events(out) as events:
        done = run_training(
            resolved, run=run, stop_at=stop_at, force=force, events=events, sampler=sample_text
        )
    finish(done, out)


def tell_settings(resolved: Resolved, out: Output) -> None:
    """Under -v: the settings that are no defaults, each with where it came from."""
    if out.verbose:
        for key, value in resolved.values().items():
            if resolved.provenance.get(key, "default") != "default":
                out.note(f"{key} = {value} ({resolved.provenance[key]})")


def finish(done: dict[str, object], out: Output) -> None:
    """The last lines of train and resume."""
    from holo_cli.cli.progress import summary

    if not out.json:
        for line in summary(done):
            out.text(line)
    best = done.get("best") or done.get("last")
    out.end("", f'holo generate -c {best} --prompt "..."')
