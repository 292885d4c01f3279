"""From what a person types to a checkpoint's path, and how runs are named on the disk.

A run has up to three files in `checkpoints/`: RUN_best, RUN_last and RUN_weights, each
`.safetensors`. A folder made by `holo export --to dir` is a checkpoint too. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from holo_cli import registry
from holo_cli.errors import CheckpointError, UsageError, nearest
from holo_cli.names import existing, same_name
from holo_cli.paths import CHECKPOINTS

Kind = Literal["best", "last", "weights"]
KINDS: tuple[Kind, ...] = ("best", "last", "weights")

SUFFIX = ".safetensors"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MAKE_ONE = "`holo train --model vanilla` makes one."

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def check_run_name(run: str) -> str:
    """A run's name becomes part of file names on every system; returns it, or raises UsageError."""
    if not run or run.startswith((".", "-")) or _FORBIDDEN.search(run) or run != run.strip():
        raise UsageError(
            f"'{run}' cannot name a run.",
            next_step="Use letters of any script, digits, '-', '_' and '.', as in ngt-night2.",
        )
    return run


def run_path(root: Path, run: str, kind: Kind) -> Path:
    """The path of a run's checkpoint of that kind: `root/RUN_KIND.safetensors`."""
    return root / f"{check_run_name(run)}_{kind}{SUFFIX}"


def split_run(path: Path) -> tuple[str, str]:
    """(run, kind) of a file's name; kind is "" for a file a person named.

    >>> split_run(Path("checkpoints/ngt-ko_best.safetensors"))
    ('ngt-ko', 'best')
    """
    run, underscore, kind = path.stem.rpartition("_")
    return (run, kind) if underscore and run and kind in KINDS else (path.stem, "")


def known_runs(root: Path = CHECKPOINTS) -> dict[str, dict[str, Path]]:
    """Every run under `root` with its files by kind, the most recently written run first."""
    runs: dict[str, dict[str, Path]] = {}
    newest: dict[str, tuple[int, str]] = {}
    for path in root.glob(f"*{SUFFIX}"):
        if path.name.startswith("."):
            continue
        try:
            written = path.stat().st_mtime_ns
        except FileNotFoundError:  # deleted since it was listed
            continue
        run, kind = split_run(path)
        runs.setdefault(run, {})[kind] = path
        newest[run] = max(newest.get(run, (0, "")), (written, run))
    return {run: runs[run] for run in sorted(runs, key=lambda run: newest[run], reverse=True)}


def is_exported(path: Path) -> bool:
    """Whether a folder was made by `holo export --to dir`, as far as its file names tell."""
    return (path / CONFIG_FILE).is_file() and (path / WEIGHTS_FILE).is_file()


def find_checkpoint(
    name: str | Path | None,
    root: Path = CHECKPOINTS,
    prefer: Iterable[Kind] = ("best", "last"),
) -> Path:
    """The checkpoint a person means: a path, a run's name, or None for the newest run.

    Of a run's files the first kind in `prefer` that exists is taken, then any other. A name may
    also be a file's name without its folder, or the address of a copy in an object store
    (`training.mirror`), which is fetched. Raises CheckpointError with the nearest name.
    """
    if isinstance(name, str) and "://" in name:  # only then, so that finding a run imports little
        from holo_cli.checkpoint.mirror import fetch
        from holo_cli.data.remote import is_remote

        if is_remote(name):
            return fetch(name, root, (*prefer, *KINDS))
    try:
        return _find(name, root, (*prefer, *KINDS, ""))
    except OSError as error:  # a name too long for the disk, a folder one may not look into
        raise CheckpointError(
            f"Cannot look for the checkpoint {name or root}: {error.strerror}.",
            next_step="Give the path of a .safetensors file.",
        ) from error


def _find(name: str | Path | None, root: Path, order: tuple[str, ...]) -> Path:
    runs = known_runs(root)
    if name is None:
        if not runs:
            raise CheckpointError(
                f"There is no checkpoint in {root} yet.",
                next_step=MAKE_ONE,
            )
        return _preferred(next(iter(runs.values())), order)
    if not str(name).strip():  # as an unset variable of a shell is
        raise CheckpointError(
            "The name of the checkpoint is empty.",
            next_step=f"Known runs: {', '.join(runs)}." if runs else MAKE_ONE,
        )
    path = existing(name)
    if path.is_file() or is_exported(path):
        return path
    if run := same_name(str(name), runs):
        return _preferred(runs[run], order)
    typed = Path(name)
    beside_it = (root / f"{name}{SUFFIX}", root / typed, Path(f"{name}{SUFFIX}"))
    for file in map(existing, beside_it):
        if file.is_file() or is_exported(file):
            return file
    folder = existing(typed.parent)
    beside = known_runs(folder) if typed.parent != Path() else {}
    if run := same_name(typed.name, beside):  # a run in another folder: old/ngt-ko
        return _preferred(beside[run], order)
    raise _not_found(str(name), path, root, sorted({*runs, *beside}))


def _preferred(files: dict[str, Path], order: Iterable[str]) -> Path:
    return next(files[kind] for kind in order if kind in files)


def _not_found(name: str, path: Path, root: Path, runs: list[str]) -> CheckpointError:
    if path.is_dir():
        message = f"The folder {name} holds no exported model ({CONFIG_FILE} and {WEIGHTS_FILE})."
    elif path.suffix or path.parent != Path():
        message = f"There is no checkpoint at {name}."
    elif name.replace("_", "-") in registry.model_names():
        return CheckpointError(
            f"'{name}' is a model, not a checkpoint, and no run in {root} is called so.",
            next_step=f"Known runs: {', '.join(runs)}."
            if runs
            else f"`holo train --model {name}` makes one.",
        )
    else:
        message = f"There is no run '{name}' in {root}."
    if not runs:
        return CheckpointError(message, next_step=MAKE_ONE)
    run, _ = split_run(path)
    return CheckpointError(message, next_step=nearest(run, runs))
