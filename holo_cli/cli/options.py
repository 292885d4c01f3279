"""Options that several commands share: each name has one meaning and one help text.

`None` means that the option was not given: the default then comes from the config or the library,
so that an option never hides a config file's value. Help texts state it as "(default: X)".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holo_cli.cli import complete
from holo_cli.cli.errors import set_debug


def _debug(value: bool) -> bool:
    if value:
        set_debug()
    return value


def use_model(value: str | None) -> str | None:
    """Callback of options that name a model. Enables a model file, which runs its code: allowed
    because the user typed its path."""
    from holo_cli.registry import use

    return None if value is None else use(value)


# -- on every command -----------------------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line on stdout.")
]
Verbosity = Annotated[
    bool | None,
    typer.Option(
        "--verbose/--quiet", "-v/-q", help="Print more details, or only results and errors."
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_debug, help="Show the traceback of an error.")
]

# -- device, number format, seed ------------------------------------------------------------------

Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="Device: auto, cpu, cuda or mps (default: auto)."
    ),
]
Shard = Annotated[
    bool | None,
    typer.Option(
        "--shard/--no-shard",
        help="Spread the model over the processes of torchrun (FSDP), which saves memory.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="Number format of computations: auto, float32 or bfloat16 (default: auto).",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="KIND",
        help="Weights: stored, or int8, rounded to eight bits for faster decoding on a CPU "
        "(default: stored).",
    ),
]
CompiledDecoding = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the decoding step: one graph for all positions, CUDA graphs on a GPU. On a "
        "CPU nothing is gained below some thousand tokens (default: no).",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Random seed.")]

# -- checkpoints, runs and output files -----------------------------------------------------------

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="NAME",
        help="Checkpoint, as a path or a run's name (default: the newest).",
        autocompletion=complete.runs,
    ),
]
CheckpointArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[CHECKPOINT]",
        help="Checkpoint, as a path or a run's name (default: the newest).",
        autocompletion=complete.runs,
    ),
]
ModelFile = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE:CLASS",
        callback=use_model,
        help="Model file that the checkpoint needs, as path/to/mixer.py:ClassName "
        "(default: none; built-in and installed models are found by name).",
    ),
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Name of the run and its files.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
ForceRun = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace an existing run, and train even if the memory is too small."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="PATH", help="Output path (default: named automatically)."),
]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]

# -- text and prepared sets -----------------------------------------------------------------------

Lang = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="CODE",
        help="Language of the text as an ISO 639-1 code such as en or ko (default: detected).",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="Encoding of your files, for example cp949 (default: utf-8).",
    ),
]
MaxDocs = Annotated[
    int | None,
    typer.Option(
        "--max-docs", metavar="N", help="Maximum number of documents (default: unlimited)."
    ),
]
RECIPE_HELP = "Training recipe: modern, classic or llama (default: modern)."
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME", help=RECIPE_HELP, autocompletion=complete.recipes),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, for example model.layers=4. May be repeated.",
    ),
]

# -- training -------------------------------------------------------------------------------------

Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", help="Optimizer steps of the schedule (default: from the config)."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", metavar="N", help="Sequences per forward pass (default: from the config)."
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context", metavar="N", help="Sequence length in tokens (default: from the config)."
    ),
]
StopAt = Annotated[
    int | None,
    typer.Option(
        "--stop-at",
        metavar="N",
        help="Save everything and stop at step N; the schedule stays the same.",
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Tracker of the curves beside TensorBoard: trackio, wandb or none (default: from the "
        "config, none).",
    ),
]
EvalEvery = Annotated[
    int | None,
    typer.Option(
        "--eval-every",
        metavar="N",
        help="Steps between full evaluations (default: from the config).",
    ),
]
TargetLoss = Annotated[
    float | None,
    typer.Option(
        "--target-loss",
        metavar="X",
        help="Stop when the validation loss, in nats per token, reaches X.",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", metavar="SECONDS", help="Stop after SECONDS of training."),
]

# -- sampling -------------------------------------------------------------------------------------

MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens", metavar="N", help="Maximum number of new tokens (default: 256)."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        metavar="X",
        help="Sampling temperature; 0 is greedy, higher is more random (default: 0.8).",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        metavar="N",
        help="Sample only from the N most likely tokens; 0 disables (default: 0).",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        metavar="P",
        help="Nucleus sampling: keep the smallest set of tokens with total probability P; "
        "1 disables (default: 1).",
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p",
        metavar="P",
        help="Drop tokens less likely than P times the most likely one; 0 disables (default: 0).",
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        "--repetition-penalty",
        metavar="X",
        help="Make repeated tokens less likely; 1 disables (default: 1).",
    ),
]
SpanPenalty = Annotated[
    float | None,
    typer.Option(
        "--span-penalty",
        metavar="X",
        help="Make it less likely that a span of two or more tokens is repeated, the longer the "
        "span the less; 0 disables (default: 0.8 with temperature 0, else 0).",
    ),
]
NoRepeatNgram = Annotated[
    int | None,
    typer.Option(
        "--no-repeat-ngram-size",
        metavar="N",
        help="Never generate the same sequence of N tokens twice; 0 disables (default: 0).",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", help="End the text before this string. May be repeated."
    ),
]
DraftLayers = Annotated[
    int | None,
    typer.Option(
        "--draft-layers",
        metavar="N",
        help="Self-speculation: the first N layers guess tokens that all layers check in one pass; "
        "the text stays the same; 0 disables (default: 0).",
    ),
]
DraftTokens = Annotated[
    int | None,
    typer.Option(
        "--draft-tokens",
        metavar="N",
        help="With --draft-layers: maximum number of tokens guessed at a time (default: 4).",
    ),
]
ExitThreshold = Annotated[
    str | None,
    typer.Option(
        "--exit-threshold",
        metavar="X",
        help="Early exit: a token skips the remaining layers once its confidence, from 0 to 1, "
        "reaches X; auto calibrates X (default: all layers).",
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: those that are not None and not an empty list."""
    return {name: value for name, value in options.items() if value is not None and value != []}
