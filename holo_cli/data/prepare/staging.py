"""The staging folder of a prepared set.

A set is written to `NAME/.building` and moved up when it is complete, so that an existing set stays
intact until the new one is. The move is not atomic (not every system can swap folders) but can be
resumed: the new meta.json stays in `.building` until all other files have been moved, and the next
call of `recover` finishes an interrupted move.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from holo_cli.data.meta import META, Meta, read_meta
from holo_cli.data.prepare.shards import PROGRESS, read_progress
from holo_cli.data.tokenizers import FILE
from holo_cli.errors import DataError
from holo_cli.files import fsync_folder
from holo_cli.parsing import read_object

BUILDING = ".building"
LOCK = ".lock"
SOURCE = "identity"  # the setting that changes with the source's content


class ChangedSetting(NamedTuple):
    """A setting that differs between two preparations, as shown in messages."""

    name: str  # SOURCE for the source's content
    before: str
    now: str


def staging_folder(out: Path) -> Path:
    """The folder in which a set is written before it is moved to `out`."""
    return out / BUILDING


def publish(out: Path) -> None:
    """Move a complete set from its staging folder to `out`, replacing the set there."""
    staged = staging_folder(out)
    meta = read_meta(staged)
    (out / META).unlink(missing_ok=True)
    shards = shard_files(meta)
    for path in staged.iterdir():
        if path.name in shards or path.name.startswith("tokenizer."):
            path.replace(out / path.name)
    for pattern in ("train_*", "val_*"):
        for path in out.glob(pattern):
            if path.name not in shards:
                path.unlink()
    fsync_folder(out)
    (staged / PROGRESS).unlink(missing_ok=True)  # from here on only meta.json is still needed
    (staged / META).replace(out / META)
    fsync_folder(out)
    shutil.rmtree(staged)


def shard_files(meta: Meta) -> set[str]:
    """The names of the files of all token shards."""
    return {f"{s.name}.{kind}" for s in meta.shards for kind in ("bin", "idx", "docs.npy")}


def recover(out: Path) -> None:
    """Finish an interrupted move; delete staged files that cannot be resumed from."""
    if (staging_folder(out) / META).exists():
        publish(out)
    elif not (staging_folder(out) / PROGRESS).exists():
        clear(out)


def existing(out: Path) -> Meta | None:
    """The meta.json of the complete set in `out`, or None."""
    return read_meta(out) if (out / META).exists() else None


def check_resumable(out: Path, settings: dict[str, Any]) -> bool:
    """Whether there is an interrupted preparation to resume. DataError for other settings."""
    progress = read_progress(staging_folder(out))
    if progress is None:
        return False
    if changed := first_difference(progress["settings"], settings):
        next_step = "Use the old settings to resume it, or --force to start over."
        if changed.name == SOURCE:
            raise DataError(
                f"The preparation interrupted in {out} was of a source that has changed since.",
                next_step=next_step,
            )
        raise DataError(
            f"The preparation interrupted in {out} had other settings: {changed.name} was "
            f"{changed.before} and is {changed.now} now.",
            next_step=next_step,
        )
    if not (staging_folder(out) / FILE).exists():
        raise DataError(
            f"The interrupted preparation in {out} has lost its tokenizer.",
            next_step="Start over with --force.",
        )
    return True


def interrupted(out: Path) -> dict[str, Any]:
    """The progress file of an interrupted preparation; {} where there is none."""
    return read_progress(staging_folder(out)) or {}


def read_stored(path: Path, next_step: str) -> dict[str, Any] | None:
    """A JSON object of a preparation, None without the file. DataError for a damaged one."""
    try:
        return read_object(path, any_integer=True)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path} is damaged.", next_step=next_step) from error


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> ChangedSetting | None:
    """The first setting that differs, or None."""
    # the source last: other names or languages imply another one
    for key in sorted(before.keys() | now.keys(), key=lambda key: (key == SOURCE, key)):
        old, new = before.get(key), now.get(key)
        if old != new:
            return ChangedSetting(key.replace("_", "-"), _shown(old), _shown(new))
    return None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def clear(out: Path) -> None:
    """Delete the staging folder."""
    shutil.rmtree(staging_folder(out), ignore_errors=True)


def abandon(out: Path) -> None:
    """After a failure before the first document, delete everything, the folder included."""
    progress = read_progress(staging_folder(out))
    if progress is not None and progress["position"]:
        return
    clear(out)
    if [path.name for path in out.iterdir()] == [LOCK]:
        (out / LOCK).unlink()
        out.rmdir()
