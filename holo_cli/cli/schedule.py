"""The length of a run before it starts: a schedule that fits the time, and how long it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holo_cli.cli.output import Output, duration
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved
    from holo_cli.training.step_time import StepTime

FIRST_RUN = 240.0  # seconds that a run without --preset and --steps trains at most
SHORT = 20  # steps: a run of so few is over before its time is of interest
MARGIN = 0.95  # of the time limit: measuring is not exact, and the limit ends a run early
OPEN = ("default", "preset", "recipe")  # beginnings of sources that are no person's choice


def fitted(
    resolved: Resolved, out: Output, *, sizes: tuple[int, int] | None = None, force: bool = False
) -> tuple[Resolved, float | None]:
    """The config with a schedule that fits, and the seconds that the run takes.

    With a time limit the schedule has the steps that fit it, so that its cooldown happens; a number
    of steps that was asked for stays, as for a run in several jobs, and a note says what fits.
    Without a preset and a number of steps, a first try, it has those that fit FIRST_RUN. A schedule
    never becomes longer. The seconds are None where nothing is measured: a run of a few steps, and
    one of several processes, which must agree on their schedule. `sizes` are the vocabulary and the
    tokens of validation; None: those of the data.
    """
    from holo_cli.training.distributed import processes

    config = resolved.training
    if config.steps <= SHORT or processes() > 1:
        return resolved, None
    if sizes is None:
        from holo_cli.data.combined import open_data

        data = open_data(resolved.data, verify=False)
        sizes = data.tokenizer.vocab_size, data.token_count("val")
    vocab_size, val_tokens = sizes
    from holo_cli.training.step_time import measure_step

    measured = measure_step(resolved, vocab_size, force=force)
    free = _is_open(resolved, "training.steps")
    if config.time_limit is not None:
        fits = max(1, int(MARGIN * config.time_limit / measured.step))
        if free:
            resolved = shorter(resolved, fits, "what fits --time-limit", out)
        elif fits < config.steps:
            out.note(
                f"About {fits:,} of {config.steps:,} steps fit --time-limit here: the run ends "
                "before its cooldown. Without --steps the schedule fits the limit."
            )
    elif free and resolved.provenance["preset"] == "default":
        resolved = shorter(resolved, FIRST_RUN / measured.step, "what fits a first run", out)
        if resolved.training.steps < config.steps:
            out.note(f"--steps {config.steps} trains the whole schedule.")
    return resolved, run_seconds(resolved, measured, val_tokens)


def shorter(resolved: Resolved, fits: float, source: str, out: Output) -> Resolved:
    """The config with at most `fits` steps; warm-up and evaluations move with them."""
    config = resolved.training
    steps = max(1, int(fits))
    if steps >= config.steps:
        return resolved
    changes = {"training.steps": steps, "training.warmup": min(config.warmup, steps // 10)}
    if _is_open(resolved, "training.eval_every"):
        changes["training.eval_every"] = min(config.eval_every, math.ceil(steps / 2))
    out.note(f"The schedule has {counted(steps, 'step')} of {config.steps:,}: {source} here.")
    return resolved.replace(changes, source=source)


def run_seconds(resolved: Resolved, measured: StepTime, val_tokens: int) -> float:
    """Seconds of the whole run, evaluations included; at most the time limit of training."""
    config = resolved.training
    evaluations = math.ceil(config.steps / config.eval_every)
    seconds = measured.run(config.steps, evaluations, val_tokens)
    if config.time_limit is not None:
        limit = config.time_limit + measured.run(0, evaluations, val_tokens)
        seconds = min(seconds, limit)
    return seconds


def time_fact(seconds: float) -> str:
    """The time of a run, for its first line."""
    return f"training takes about {duration(seconds)}"


def _is_open(resolved: Resolved, key: str) -> bool:
    return resolved.provenance.get(key, "default").startswith(OPEN)
