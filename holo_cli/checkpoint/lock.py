"""One writer per run: a lock between processes that dies with its holder.

The lock is on the file `checkpoints/.RUN.lock`, which stays behind empty: deleting it would let two
processes each lock a file of their own under the same name.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from holo_cli.checkpoint.find import check_run_name
from holo_cli.errors import CheckpointError
from holo_cli.files import try_lock


class RunLock:
    """`with RunLock(root, run):` keeps every other process from writing that run's checkpoints.

    Raises CheckpointError, naming the holder, when the run is being written already, and when the
    folder's disk cannot lock files at all.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.run = check_run_name(run)
        self.path = Path(root) / f".{run}.lock"
        self._file: BinaryIO | None = None

    def acquire(self) -> None:
        """Take the lock, or raise at once; never waits."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            if not try_lock(file):
                file.seek(0)
                raise self._taken(file.read(200).decode("utf-8", errors="replace").strip())
            file.truncate(0)
            started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            file.write(f"process {os.getpid()} since {started}".encode())
        except OSError as error:
            file.close()
            raise self._unusable(error) from error
        except CheckpointError:
            file.close()
            raise
        self._file = file

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()  # closing frees the lock
            self._file = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _taken(self, holder: str) -> CheckpointError:
        return CheckpointError(
            f"Run '{self.run}' is being written by {holder or 'another process'}.",
            next_step="Choose another name with --run, or stop that process first.",
        )

    def _unusable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"Cannot lock run '{self.run}' with {self.path}: {error.strerror or error}.",
            next_step="Start from a folder on a disk you can write to that supports file locks.",
        )
