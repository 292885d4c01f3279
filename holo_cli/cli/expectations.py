"""What the first training run on a text may expect: size of text and model, time, a loss to watch.

Rules of thumb, with their sources in docs/training.md#what-to-expect: about 20 tokens for each
parameter are a good balance (Hoffmann et al. 2022), reading a text more than about four times adds
little (Muennighoff et al. 2023), and words come whole near 1.5 bits per byte (own runs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holo_cli.cli.output import Output, count, duration

if TYPE_CHECKING:
    from holo_cli.cli.progress import TrainingDisplay
    from holo_cli.config.training_schema import DataConfig
    from holo_cli.data.dataset import PreparedData

BALANCED = 20.0  # tokens per parameter
OFTEN = 4.0  # passes over a text
READABLE = 1.5  # bits per byte
OWN = "stories"  # the embedded source: known text, for which these rules are too high

Event = dict[str, Any]


def expecting(show: TrainingDisplay, config: DataConfig, out: Output) -> Callable[[Event], None]:
    """The renderer `show`, with a few lines after the first measured speed of a first run."""
    if out.json or out.quiet or out.silent:
        return show
    from holo_cli.data.combined import open_data

    data = open_data(config, verify=False)
    if not is_first(data):
        return show
    start: Event = {}

    def event_of(event: Event) -> None:
        show(event)
        if event["event"] == "start":
            start.update(event)
        elif event["event"] == "train" and start:
            tell_expectations(data, start, event, show.say)
            start.clear()

    return event_of


def is_first(data: PreparedData) -> bool:
    """Whether no run in checkpoints/ was trained on this set, and it is a text of the user's."""
    from holo_cli.checkpoint import known_runs
    from holo_cli.checkpoint.read import read_header
    from holo_cli.errors import CheckpointError

    if data.name == OWN:
        return False
    for files in known_runs().values():
        try:
            header = read_header(next(iter(files.values())))
        except CheckpointError:
            continue
        if header.data.fingerprint == data.fingerprint:
            return False
    return True


def tell_expectations(
    data: PreparedData, start: Event, event: Event, say: Callable[[str], None]
) -> None:
    """Says the lines, from the first event of a run and the first with a speed."""
    tokens, parameters = data.token_count("train"), start["parameters"]
    each = tokens / parameters
    say(
        f"What to expect: {count(tokens)} tokens of text for {count(parameters)} parameters, "
        f"{each:.2g} for each (about {BALANCED:.0f} is a good balance), read {start['epochs']:.1f} "
        "times."
    )
    if each < BALANCED / 20 and start["epochs"] > OFTEN:
        say(
            "This model can learn the text by heart: more text, or a smaller preset, helps more "
            "than more steps."
        )
    if event.get("eta_seconds"):
        say(f"Training takes about {duration(event['eta_seconds'])} more.")
    size = data.byte_count("val") / max(1, data.token_count("val"))
    loss = READABLE * math.log(2) * size
    say(
        f"Words usually come whole near a validation loss of {loss:.1f} ({READABLE} bits per byte)."
    )
