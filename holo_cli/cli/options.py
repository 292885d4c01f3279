"""The options that several commands share: one name, one meaning, one help text each.

`None` always means "not given": the default then comes from the config or the library, which is
where it is documented, so that a flag never hides a config file's value.
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


# -- on every command -----------------------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Verbosity = Annotated[
    bool | None,
    typer.Option("--verbose/--quiet", "-v/-q", help="Say more, or only results and errors."),
]
Debug = Annotated[bool, typer.Option("--debug", callback=_debug, help="Show tracebacks of errors.")]


def use_model(value: str | None) -> str | None:
    """Callback of options that name a model: one in a file may be run from here on, as it was typed
    by the person at the keyboard."""
    from holo_cli.registry import use

    return None if value is None else use(value)


# -- where and how to compute ---------------------------------------------------------------------

Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or mps.")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", metavar="NAME", help="auto, float32 or bfloat16.")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of all chance.")]

# -- checkpoints and runs -------------------------------------------------------------------------

CHECKPOINT_HELP = "A path, or a run's name; left out: the newest."
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", "-c", metavar="NAME", help=CHECKPOINT_HELP, autocompletion=complete.runs
    ),
]
CheckpointArgument = Annotated[
    str | None,
    typer.Argument(metavar="[CHECKPOINT]", help=CHECKPOINT_HELP, autocompletion=complete.runs),
]
ModelFile = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE:CLASS",
        callback=use_model,
        help="Model file that the checkpoint needs, as in path/to/mixer.py:ClassName "
        "(default: none; built-in and installed models are found by name).",
    ),
]
Run = Annotated[str | None, typer.Option("--run", metavar="NAME", help="Name of the run's files.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to write.")]

# -- text -----------------------------------------------------------------------------------------

Lang = Annotated[
    str | None, typer.Option("--lang", metavar="CODE", help="Language, as in en or ko.")
]

# -- training, shared by train and resume ---------------------------------------------------------

Steps = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Optimizer steps of the schedule.")
]
StopAt = Annotated[
    int | None,
    typer.Option(
        "--stop-at", metavar="N", help="Stop at step N of the schedule with everything saved."
    ),
]
EvalEvery = Annotated[
    int | None,
    typer.Option("--eval-every", metavar="N", help="Steps between full evaluations."),
]
TargetLoss = Annotated[
    float | None,
    typer.Option("--target-loss", metavar="X", help="Stop when the validation loss reaches X."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", metavar="SECONDS", help="Stop after this time of training."),
]

# -- sampling, shared by generate and chat --------------------------------------------------------

MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", metavar="N", help="Tokens at most.  [256]")
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", metavar="X", help="0 is greedy; higher is wilder.  [0.8]"),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", metavar="N", help="Only the N likeliest tokens; 0: off.")
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", metavar="P", help="Only the likeliest tokens up to P in all; 1: off."),
]
MinP = Annotated[
    float | None,
    typer.Option("--min-p", metavar="P", help="Only tokens above P times the best one; 0: off."),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option("--repetition-penalty", metavar="X", help="Above 1 holds repeats down; 1: off."),
]
NoRepeatNgram = Annotated[
    int | None,
    typer.Option("--no-repeat-ngram-size", metavar="N", help="No run of N tokens twice; 0: off."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="Stop before this text. May be repeated."),
]
ExitThreshold = Annotated[
    str | None,
    typer.Option(
        "--exit-threshold",
        metavar="X",
        help="Tokens leave the layers early where confidence reaches X (0 to 1), or auto.",
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: those that are not None and not an empty list."""
    return {name: value for name, value in options.items() if value is not None and value != []}
