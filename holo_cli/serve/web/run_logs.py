"""Logs of runs as JSON. A browser that has read a part asks for what came after.

A run that is resumed gets a new file (`training/metrics.py`): then all of it is sent again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from holo_cli.checkpoint.find import check_run_name
from holo_cli.checkpoint.runs import LOG, differing, find_run, list_runs
from holo_cli.errors import UsageError
from holo_cli.parsing import ParseError, parse_object
from holo_cli.paths import CHECKPOINTS, RUNS
from holo_cli.serve.refusal import Refusal

MOST_POINTS = 1000  # training rows in one answer; more are thinned evenly, the last one kept
MOST_BYTES = 64 * 10**6  # of a log that are read at once
TRAIN = ("step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second")
EVAL = ("step", "tokens", "train_seconds", "val_loss", "bpb", "sample")
START = ("run", "model", "preset", "recipe", "data", "parameters", "steps", "tokens_per_step",
         "device", "dtype", "memory_bytes", "available_bytes")  # fmt: skip
DONE = ("stopped_by", "train_seconds", "eval_seconds", "tokens_per_second", "peak_rss_bytes")


def summaries() -> list[dict[str, Any]]:
    """What `holo runs --json` lists, without paths."""
    rows = [run.to_dict() for run in list_runs(CHECKPOINTS, RUNS)]
    return [{k: v for k, v in row.items() if k not in ("files", "log")} for row in rows]


def settings(names: list[str]) -> dict[str, Any]:
    """Settings in which runs differ, as `holo runs compare --json` gives them."""
    try:
        found = [find_run(name, CHECKPOINTS, RUNS) for name in names]
    except UsageError as error:
        raise Refusal(404, error.message, code="run_not_found") from error
    configs = [run.header.config if run.header else {} for run in found]
    return {"runs": [run.run for run in found], "differing": differing(configs)}


def log_after(name: str, log: str, start: int) -> dict[str, Any]:
    """The events of a run's log from byte `start` of the file `log` on, or all of another file.

    Returns {"log", "next", "whole", "damaged", "start", "train", "eval", "done"}: the file and
    where to read on, whether earlier rows are void, how many lines are damaged, and rows by kind.
    Raises Refusal for a run without a log.
    """
    path = _log_path(name)
    try:
        with path.open("rb") as file:
            stat = path.stat()
            same = log == str(stat.st_ino) and 0 <= start <= stat.st_size
            file.seek(start if same else 0)
            content = file.read(MOST_BYTES)
    except OSError as error:
        raise Refusal(404, f"The run '{name}' has no log.", code="run_not_found") from error
    whole, _, _ = content.rpartition(b"\n")  # the last line may be unfinished
    used = len(whole) + 1 if whole else 0
    found: dict[str, Any] = {
        "log": str(stat.st_ino),
        "next": (start if same else 0) + used,
        "whole": not same,
        "damaged": 0,
        "start": None,
        "train": [],
        "eval": [],
        "done": None,
    }
    for line in whole.split(b"\n"):
        try:
            event = parse_object(line, nan=True) if line else {}
        except ParseError:
            found["damaged"] += 1
            continue
        _take(event, found)
    train = found["train"]
    if len(train) > MOST_POINTS:
        count = len(train)
        found["train"] = [train[(i + 1) * count // MOST_POINTS - 1] for i in range(MOST_POINTS)]
    return found


def _take(event: dict[str, Any], found: dict[str, Any]) -> None:
    kind = event.get("event")
    if kind == "train":
        found["train"].append(_row(event, TRAIN))
    elif kind == "eval":
        found["eval"].append(_row(event, EVAL))
    elif kind == "start":
        found["start"], found["done"] = _row(event, START), None
    elif kind == "done":
        found["done"] = _row(event, DONE)


def _row(event: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Some keys of an event; a number that is not finite becomes None, as JSON has none."""
    row = {key: event[key] for key in keys if key in event}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _log_path(name: str) -> Path:
    try:
        path = RUNS / check_run_name(name) / LOG
        if path.resolve(strict=True).is_relative_to(RUNS.resolve()):
            return path
    except (UsageError, OSError, ValueError):  # no name of a run, not there, a zero byte
        pass
    raise Refusal(404, f"The run '{name}' has no log.", code="run_not_found")
