"""The folder of a prepared set while it is being made.

Everything is made in `NAME/.building`, and moved up when complete, so that a set that is already
there stays whole until its successor is. The move cannot be one step (a folder cannot be swapped
on every system), but it can be gone on with: the new meta.json lies in `.building` until all other
files are in their places, and whoever comes next finishes the move.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from holo_cli.data.meta import META, Meta, read_meta
from holo_cli.data.prepare.shards import PROGRESS, read_progress
from holo_cli.data.tokenizers import FILE
from holo_cli.errors import DataError
from holo_cli.files import fsync_folder

BUILDING = ".building"
LOCK = ".lock"


def staging_folder(out: Path) -> Path:
    """Where a set is made before it lies in `out`."""
    return out / BUILDING


def publish(out: Path) -> None:
    """Move a complete set from its workshop into `out`, replacing the one there."""
    workshop = staging_folder(out)
    meta = read_meta(workshop)
    (out / META).unlink(missing_ok=True)
    shards = {f"{s.name}.{kind}" for s in meta.shards for kind in ("bin", "idx", "docs.npy")}
    for path in workshop.iterdir():
        if path.name in shards or path.name.startswith("tokenizer."):
            path.replace(out / path.name)
    for pattern in ("train_*", "val_*"):
        for path in out.glob(pattern):
            if path.name not in shards:
                path.unlink()
    fsync_folder(out)
    (workshop / PROGRESS).unlink(missing_ok=True)  # what is left from here on is rubbish
    (workshop / META).replace(out / META)
    fsync_folder(out)
    shutil.rmtree(workshop)


def recover(out: Path) -> None:
    """Finish a move that was interrupted, and clear away what no work can go on from."""
    if (staging_folder(out) / META).exists():
        publish(out)
    elif not (staging_folder(out) / PROGRESS).exists():
        clear(out)


def existing(out: Path) -> Meta | None:
    """The meta.json of a complete set in `out`; None where there is none."""
    return read_meta(out) if (out / META).exists() else None


def check_resumable(out: Path, settings: dict[str, Any]) -> bool:
    """Whether an interrupted preparation can be gone on with; refuses one of other settings."""
    progress = read_progress(staging_folder(out))
    if progress is None:
        return False
    if difference := first_difference(progress["settings"], settings):
        raise DataError(
            f"A preparation with other settings was interrupted in {out}: {difference}.",
            next_step="Give those settings to go on with it, or --force to begin anew.",
        )
    if not (staging_folder(out) / FILE).exists():
        raise DataError(
            f"The interrupted preparation in {out} has lost its tokenizer.",
            next_step="Begin anew with --force.",
        )
    return True


def interrupted(out: Path) -> dict[str, Any]:
    """What an interrupted preparation has noted; empty where there is none."""
    return read_progress(staging_folder(out)) or {}


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting that differs, in words; empty if none does."""
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new:
            if key == "identity":
                return "the source has changed since"
            return f"{key.replace('_', '-')} was {_shown(old)} and is {_shown(new)} now"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "not given"
    return "not given" if value is None else str(value)


def clear(out: Path) -> None:
    """Throw away what an interrupted preparation left."""
    shutil.rmtree(staging_folder(out), ignore_errors=True)


def abandon(out: Path) -> None:
    """After a failure before the first document: leave nothing behind, not even a folder."""
    progress = read_progress(staging_folder(out))
    if progress is not None and progress["position"]:
        return
    clear(out)
    if [path.name for path in out.iterdir()] == [LOCK]:
        (out / LOCK).unlink()
        out.rmdir()
