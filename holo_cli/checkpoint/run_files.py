"""Renames and deletes all files of a run. No torch.

Both take the run's lock, so that nothing is taken from a training in progress. The lock's own file
`.RUN.lock` stays (see lock.py).
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from holo_cli.checkpoint.digest import DIGEST_KEY, LENGTH_BYTES, METADATA_KEY, text_digest
from holo_cli.checkpoint.find import check_run_name, known_runs
from holo_cli.checkpoint.lock import RunLock
from holo_cli.checkpoint.parts import clear_parts, parts_folder, parts_of
from holo_cli.checkpoint.read import read_header
from holo_cli.checkpoint.runs import RunSummary
from holo_cli.errors import CheckpointError, UsageError
from holo_cli.files import atomic_file, remove_leftovers
from holo_cli.parsing import parse_object
from holo_cli.paths import CHECKPOINTS, RUNS

_COPY = 16 << 20  # bytes


def delete_run(found: RunSummary, root: Path = CHECKPOINTS) -> list[Path]:
    """Delete a run's checkpoints and its log; returns what was deleted.

    Raises CheckpointError, and deletes nothing, while a process trains the run.
    """
    with RunLock(root, found.run):
        deleted = []
        for path in found.files.values():
            remove_leftovers(path)
            path.unlink(missing_ok=True)
            clear_parts(path)
            deleted.append(path)
        if found.log is not None:
            if found.log.is_symlink():
                found.log.unlink()
            else:
                shutil.rmtree(found.log)
            deleted.append(found.log)
        return deleted


def rename_run(
    found: RunSummary, name: str, root: Path = CHECKPOINTS, logs: Path = RUNS
) -> list[Path]:
    """Give a run another name, in its files' names and in their headers; returns the new paths.

    New files are written before old ones are deleted. Raises UsageError for a name that is taken or
    impossible, CheckpointError for a damaged checkpoint and while a process trains the run.
    """
    check_run_name(name)
    if name in known_runs(root) or (logs / name).exists():
        raise UsageError(f"A run '{name}' exists already.", next_step="Choose another name.")
    with ExitStack() as locks:
        for run in (found.run, name):
            locks.enter_context(RunLock(root, run))
        for path in found.files.values():
            read_header(path)  # a damaged file is an error before anything is written
        made = []
        for kind, path in found.files.items():
            new = path.with_name(f"{name}_{kind}{path.suffix}" if kind else name + path.suffix)
            _copy_parts(path, new)
            _copy_renamed(path, new, name)
            made.append(new)
        if found.log is not None:
            made.append(found.log.rename(logs / name))
        for path in found.files.values():
            path.unlink()
            clear_parts(path)
        return made


def _copy_parts(old: Path, new: Path) -> None:
    """The parts of a checkpoint for its new name: links to the same files where that works."""
    folder = parts_folder(new)
    try:
        for part in parts_of(old):
            folder.mkdir(exist_ok=True)
            (folder / part).unlink(missing_ok=True)
            try:
                (folder / part).hardlink_to(parts_folder(old) / part)
            except OSError:
                shutil.copyfile(parts_folder(old) / part, folder / part)
    except OSError as error:
        raise _not_renamed(folder, old, error) from error


def _copy_renamed(old: Path, new: Path, run: str) -> None:
    """The same checkpoint with another `run` in its header; everything else is copied as it is."""
    with old.open("rb") as source:
        length = int.from_bytes(source.read(LENGTH_BYTES), "little")
        entries = parse_object(source.read(length))
        metadata = entries["__metadata__"]
        header = parse_object(metadata[METADATA_KEY]) | {"run": run}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
        metadata[METADATA_KEY] = text
        if DIGEST_KEY in metadata:
            metadata[DIGEST_KEY] = text_digest(text)
        head = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        head += b" " * (-len(head) % 8)  # tensors stay aligned
        try:
            with atomic_file(new) as target:
                target.write(len(head).to_bytes(LENGTH_BYTES, "little") + head)
                shutil.copyfileobj(source, target, _COPY)
        except OSError as error:
            raise _not_renamed(new, old, error) from error


def _not_renamed(new: Path, old: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"Cannot write {new}: {error.strerror or error}.",
        next_step=f"The run keeps its old name; {old} is unchanged.",
    )
