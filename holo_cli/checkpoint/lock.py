"""One writer per run: a lock between processes that ends with its holder.

The lock is on the file `checkpoints/.RUN.lock`, which names its last holder and is never deleted.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from types import TracebackType

from filelock import Timeout

from holo_cli.checkpoint.find import check_run_name
from holo_cli.errors import CheckpointError
from holo_cli.files import file_lock, try_lock


def _write_holder(descriptor: int) -> None:
    started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} since {started}".encode())


def is_locked(root: Path, run: str) -> bool:
    """Whether a process holds the run's lock at this moment. Writes nothing."""
    try:
        with (Path(root) / f".{run}.lock").open("rb") as file:
            file.read(1)  # on Windows a locked file cannot be read
            return not try_lock(file)
    except FileNotFoundError:
        return False
    except PermissionError:
        return sys.platform == "win32"
    except OSError:  # a disk without locks, where no run can be trained
        return False


class RunLock:
    """`with RunLock(root, run):` keeps every other process from writing that run's checkpoints.

    Raises CheckpointError, naming the holder, when another process writes the run, and when the
    folder's disk cannot lock files at all.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.run = check_run_name(run)
        self.path = Path(root) / f".{run}.lock"
        self._lock = file_lock(self.path, on_acquired=_write_holder)

    def acquire(self) -> None:
        """Take the lock, or raise at once; never waits."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise self._taken() from None
        except OSError as error:
            raise CheckpointError(
                f"Cannot lock run '{self.run}' with {self.path}: {error.strerror or error}.",
                next_step="Start from a folder on a disk you can write to that supports file "
                "locks.",
            ) from error

    def release(self) -> None:
        """Release the lock; without effect when it is not held."""
        self._lock.release()

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

    def _taken(self) -> CheckpointError:
        try:
            holder = self.path.read_text(encoding="utf-8", errors="replace")[:200].strip()
        except OSError:  # on Windows nobody else can read a locked file
            holder = ""
        return CheckpointError(
            f"Run '{self.run}' is being written by {holder or 'another process'}.",
            next_step="Choose another name with --run, or stop that process first.",
        )
