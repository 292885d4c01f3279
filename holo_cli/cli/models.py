"""`holo models`: lists the models, or the costs of one of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from holo_cli import registry
from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, count, size
from holo_cli.errors import ModelError, UsageError
from holo_cli.imports import no_collections
from holo_cli.names import quoted
from holo_cli.plugins import is_file
from holo_cli.translation import translate

MEMORIES_GB = (0.5, 3, 6, 12, 24)  # of small machines and of common GPUs

COSTS = (
    ("parameters", "parameters", count),
    ("active_parameters", "active", count),
    ("train_flops_per_token", "FLOPs/token train", count),
    ("decode_flops_per_token", "decode", count),
    ("state_bytes", "state", size),
    ("train_memory_bytes", "memory to train", size),
)


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            callback=options.use_model,
            help="Model to describe, also as path/to/mixer.py:ClassName (default: list all).",
            autocompletion=complete.models,
        ),
    ] = None,
    vocab_size: Annotated[
        int,
        typer.Option(
            "--vocab-size",
            metavar="N",
            help="Vocabulary size in tokens for which costs are computed.",
        ),
    ] = 8192,
    recipe: options.Recipe = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure the memory to train again, in seconds to minutes, instead of looking up "
            "earlier figures.",
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="What a run of one preset takes on each of several GPUs."),
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="Preset for --plan (default: 25m, or the first)."
        ),
    ] = None,
    sets: options.Sets = None,
    gpus: Annotated[
        int, typer.Option("--gpus", metavar="N", help="Number of GPUs for --plan.")
    ] = 1,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory",
            metavar="GB",
            help="Memory of one GPU for --plan, in GB (default: that of --gpu, or 24).",
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="NAME",
            help="GPU whose published memory, rate and link --plan computes with: a100, h100, "
            "h200, b200, l40s or l4.",
        ),
    ] = None,
    gpu_tflops: Annotated[
        float | None,
        typer.Option(
            "--gpu-tflops",
            metavar="X",
            help="Published product rate of one GPU in bfloat16, in Tflop/s, for --plan.",
        ),
    ] = None,
    link: Annotated[
        float | None,
        typer.Option(
            "--link",
            metavar="GB",
            help="What one GPU sends in GB/s, in one direction, for --plan.",
        ),
    ] = None,
    utilization: Annotated[
        float | None,
        typer.Option(
            "--utilization",
            metavar="X",
            help="Share of the published rate that --plan assumes a step to reach (default: 0.4).",
        ),
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(
            "--tokens-per-second",
            metavar="X",
            help="Measured speed of one such GPU, from which --plan computes the time of a run.",
        ),
    ] = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """List the models, or the costs of one of them.

    For one model: parameters, FLOPs, state size and memory of each of its presets.
    """
    out = Output(json=json, verbosity=verbosity)
    if plan:
        from holo_cli.cli.device_plan import DeviceOptions, show_plan

        settings = {"preset": preset, "recipe": recipe, "sets": sets or ()}
        device = DeviceOptions(gpu, memory, gpu_tflops, link, utilization, tokens_per_second)
        show_plan(name, vocab_size, settings, gpus, device, out)
        return
    if sets or preset:
        raise UsageError(
            "--preset and --set are for --plan.",
            next_step="For example: holo models vanilla --plan --preset 25m --gpus 8 --memory 80",
        )
    if name is None:
        rows = overview(out)
        out.document({"models": rows})
        out.table(
            ("model", "mechanism", "presets"),
            [(row["name"], row["mechanism"], ", ".join(row["presets"])) for row in rows],
        )
        out.end("", f"holo models {rows[0]['name']}")
        return
    found = costs(name, vocab_size, recipe, measure=measure)
    row = {**one(name), "vocab_size": vocab_size, "costs": found, "fits": fits(found)}
    out.document({"models": [row]})
    out.text(f"{row['name']}: {translate(row['mechanism'])}\n")
    table = [
        (preset, *(show(cost[key]) for key, _, show in COSTS))
        for preset, cost in row["costs"].items()
    ]
    out.table(("preset", *(title for _, title, _ in COSTS)), table)
    out.note(f"For a vocabulary of {vocab_size:,} tokens and each preset's context length.")
    if len(table) > 1:
        largest = ", ".join(f"{gb} GB: {preset or 'none'}" for gb, preset in row["fits"].items())
        out.note(f"Largest preset that trains in a memory of {largest}.")
    typed = str(registry.find(row["name"])) if is_file(row["name"]) else row["name"]
    preset = f" --preset {row['presets'][0]}" if row["presets"] else ""
    out.end("", f"holo train --model {quoted(typed)}{preset}")


def fits(found: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    """The preset with most parameters that trains in each memory of MEMORIES_GB, or None.

    The estimate of a run, as `train --dry-run` gives it, may take 90 % of the memory; the process
    itself takes some of the rest.
    """
    by_size = sorted(found, key=lambda preset: int(found[preset]["parameters"]))
    return {
        f"{gb:g}": next(
            (p for p in reversed(by_size) if found[p]["train_memory_bytes"] <= 0.9e9 * gb), None
        )
        for gb in MEMORIES_GB
    }


def overview(out: Output) -> list[dict[str, Any]]:
    """Name, mechanism and presets of every model, with a warning for each that cannot be used;
    imports no torch, unless a model from outside does."""
    from holo_cli.registry import model_names

    rows = []
    for name in model_names():
        try:
            rows.append(one(name))
        except ModelError as error:
            out.warn(str(error))
    return rows


def one(name: str) -> dict[str, Any]:
    """Name, mechanism and presets of one model."""
    found = registry.find(name).name
    return {
        "name": found,
        "mechanism": registry.mechanism(found),
        "presets": registry.preset_names(found),
    }


def costs(
    name: str, vocab_size: int, recipe: str | None, *, measure: bool = False
) -> dict[str, dict[str, Any]]:
    """What each preset costs, by name: `Description` and the memory estimate in one dict. A model
    without presets has one row, "defaults". `measure` runs a row of each preset for the memory.

    HOLO_ variables, which would change what a preset is, do not count here.
    """
    import dataclasses

    with no_collections():
        from holo_cli.checkpoint.rebuild import shapes_only
        from holo_cli.config.resolve import resolve
        from holo_cli.registry import preset_names
        from holo_cli.training.row_memory import train_memory_bytes

    found = {}
    presets: list[str | None] = [*preset_names(name)]
    for preset in presets or [None]:
        resolved = resolve(name, preset, recipe, flags={"model.vocab_size": vocab_size}, env={})
        # a preset of any size, in no memory; drawing weights would import torch's compiler
        model = shapes_only(name, resolved.model)
        described = model.describe()
        memory = train_memory_bytes(resolved, vocab_size, model, measure=measure)
        found[preset or "defaults"] = {
            **dataclasses.asdict(described),
            "train_memory_bytes": memory,
        }
    return found
