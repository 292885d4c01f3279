"""Runs as `holo train` logged them in runs/RUN/metrics.jsonl, and what their curves show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli.checkpoint.find import check_run_name
from holo_cli.errors import DataError, nearest
from holo_cli.names import existing
from holo_cli.parsing import ParseError, parse_object, read_bytes
from holo_cli.paths import RUNS
from holo_cli.wording import counted

LOG = "metrics.jsonl"
RISEN = 0.01  # nats above the lowest validation loss: more than evaluations differ by chance


@dataclass(frozen=True)
class RunCurves:
    """The rows of a run's log that are drawn, each with "step", "tokens" and "seconds"."""

    name: str
    train: list[dict[str, Any]]  # "loss"
    evaluations: list[dict[str, Any]]  # "val_loss", "bpb", perhaps "sample" and "measures"
    start: dict[str, Any] = field(default_factory=dict)  # the log's first row, as far as it goes

    def validation(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of each evaluation that has a finite value."""
        return [
            (row["step"], float(row[key]))
            for row in self.evaluations
            if isinstance(row.get(key), int | float) and math.isfinite(row[key])
        ]

    def summary(self) -> str:
        """The model, its data, its last step and its best loss, in one line."""
        step = max(row["step"] for row in (*self.train, *self.evaluations))
        parts = [self.start.get("model"), self.start.get("preset")]
        what = " ".join(str(part) for part in parts if part)
        data = f"on {self.start['data']}" if self.start.get("data") else ""
        best = [value for _, value in self.validation("val_loss")]
        loss = f"best validation loss {min(best):.4f}" if best else ""
        return ", ".join(part for part in (what, data, f"step {step:,}", loss) if part)


def read_run(name: str, root: Path = RUNS) -> RunCurves:
    """Read a run's log. Raises DataError for a run without one, or a log that is damaged."""
    path = existing(root / check_run_name(name)) / LOG
    try:
        content = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        there = [found.parent.name for found in root.glob(f"*/{LOG}")]
        raise DataError(
            f"The run '{name}' has no log at {path.as_posix()}.",
            next_step=nearest(name, there) or "Name a run with --run, from the folder it ran in.",
        ) from error
    except ParseError as error:
        raise DataError(f"The log {path.as_posix()} cannot be read: it is {error}.") from error
    run = RunCurves(name, [], [])
    # a last line without an end is being written, or was cut off by a crash
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            event = parse_object(line, nan=True) if line else {}
            if event.get("event") == "start":
                run.start.update(event)
            elif event.get("event") == "train":
                run.train.append(_row(event, event["seconds"]))
            elif event.get("event") == "eval":
                run.evaluations.append(_row(event, event["train_seconds"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Line {number} of {path.as_posix()} is damaged.",
                next_step="Delete that line, or train the run again.",
            ) from error
    if not run.train and not run.evaluations:
        raise DataError(
            f"The log {path.as_posix()} has no figures yet.",
            next_step="Wait for the run's first steps.",
        )
    return run


def _row(event: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The event with the three things that curves are drawn against."""
    against = {"step": int(event["step"]), "tokens": int(event["tokens"])}
    return event | against | {"seconds": round(float(seconds), 1)}


def runs_story(runs: Sequence[RunCurves]) -> str:
    """One sentence: of one run, where its validation loss fell to and whether it still falls; of
    several, which is lowest, and by how much. Losses of different data or tokenizers cannot be
    compared, so there it is bits per byte."""
    same = len({run.start.get("data") for run in runs}) == 1
    key = "val_loss" if same else "bpb"
    curves = {run.name: run.validation(key) for run in runs}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return "No run has been evaluated yet: only the loss of training batches is drawn."
    lowest = {name: min(curve, key=lambda at: at[1]) for name, curve in curves.items()}
    first, *rest = sorted(lowest, key=lambda name: lowest[name][1])
    step, value = lowest[first]
    if rest:
        reached = f"a loss of {value:.4f}" if same else f"{value:.4f} bits per byte"
        second, last = rest[0], rest[-1]
        lead = lowest[second][1] - value
        if len(rest) == 1:
            return (
                f"Run '{first}' is lowest on the validation set, {reached} at step {step:,}: "
                f"{lead:.4f} below '{second}'."
            )
        return (
            f"Run '{first}' is lowest on the validation set, {reached} at step {step:,}: "
            f"{lead:.4f} below '{second}' and {lowest[last][1] - value:.4f} below '{last}'."
        )
    begun, ended = curves[first][0], curves[first][-1]
    if len(curves[first]) == 1:
        return f"The validation loss is {value:.4f} at step {step:,}, the only evaluation so far."
    if ended[1] - value > RISEN:
        return (
            f"The validation loss was lowest at step {step:,}, {value:.4f}, and has risen by "
            f"{ended[1] - value:.4f} since: the run fits its training data better than new text."
        )
    before = curves[first][-2]
    return (
        f"The validation loss falls from {begun[1]:.4f} to {value:.4f} in "
        f"{counted(ended[0], 'step')}, {before[1] - ended[1]:.4f} of it in the last "
        f"{counted(ended[0] - before[0], 'step')}."
    )
