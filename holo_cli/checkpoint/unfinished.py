"""Runs that have not reached their end: what `holo resume` without a name can resume."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from holo_cli.checkpoint.find import known_runs
from holo_cli.checkpoint.header import Header
from holo_cli.checkpoint.read import read_header
from holo_cli.errors import CheckpointError
from holo_cli.paths import CHECKPOINTS


class Unfinished(NamedTuple):
    """A run at `step` of `steps`, by the header of its `_last` file."""

    run: str
    step: int
    steps: int
    path: Path


def unfinished_runs(root: Path = CHECKPOINTS, steps: int | None = None) -> list[Unfinished]:
    """The runs under `root` that can be resumed, the most recently written first.

    `steps`: the length that their schedules would get. A checkpoint that cannot be read is left
    out; it is an error only for who names it.
    """
    found = []
    for run, files in known_runs(root).items():
        if "last" not in files:
            continue
        try:
            header = read_header(files["last"])
        except CheckpointError:
            continue
        total = planned_steps(header) if steps is None else steps
        if header.kind == "last" and header.step < total and not has_ended(header):
            found.append(Unfinished(run, header.step, total, files["last"]))
    return found


def _training(header: Header, key: str) -> float:
    value = (header.config.get("training") or {}).get(key)
    return value if isinstance(value, int | float) else 0


def planned_steps(header: Header) -> int:
    """Steps of the run's schedule; 0 where the header has none."""
    return int(_training(header, "steps"))


def has_ended(header: Header) -> bool:
    """Whether --target-loss or --time-limit ended it: it would end again at once."""
    target, limit = _training(header, "target_loss"), _training(header, "time_limit")
    loss, seconds = header.losses.val, header.state.get("train_seconds")
    by_loss = bool(target) and loss is not None and loss <= target
    by_time = bool(limit) and isinstance(seconds, int | float) and seconds >= limit
    return by_loss or by_time
