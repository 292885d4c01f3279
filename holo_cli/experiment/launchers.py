"""Where the runs of an experiment are carried out: on this machine, by Slurm, or by Ray.

A launcher makes a `JobPool`: it starts jobs and gives their events. `worker_pool.run_jobs` drives
any of them, and the experiment does not know which.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from holo_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from holo_cli.experiment.worker_pool import Job, WorkerEvent

LOCAL, SLURM, RAY = "local", "slurm", "ray"
LAUNCHERS = (LOCAL, SLURM, RAY)
CLUSTER_JOBS = 64  # that a cluster is given at once, unless --jobs says otherwise


class JobPool(Protocol):
    """Jobs under way, each in a folder named after its key, where a stopped job finds its files
    again. A context manager: leaving it stops the jobs still running."""

    @property
    def running(self) -> Collection[str]:
        """Keys of the jobs under way."""
        ...

    @property
    def has_room(self) -> bool: ...

    def start(self, job: Job) -> None:
        """Start a job; there must be room."""
        ...

    def next_event(self, timeout: float) -> WorkerEvent | None:
        """The next event of any job; None after `timeout` seconds without one."""
        ...

    def clean_up(self, received: WorkerEvent) -> None:
        """Delete a finished job's folder, once its event is stored."""
        ...

    def clear(self) -> None:
        """Delete the folders of stopped jobs that are no longer asked for."""
        ...

    def stop(self) -> None:
        """Ask every job to save and exit, and wait for them."""
        ...

    def __enter__(self) -> JobPool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True)
class Launcher:
    """One of LAUNCHERS, with arguments of its own: options of sbatch, or resources for Ray."""

    name: str = LOCAL
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, arguments: str = "") -> Launcher:
        """The launcher of a command line. Raises UsageError where it cannot be used here."""
        if name not in LAUNCHERS:
            raise UsageError(
                f"There is no launcher '{name}'.", next_step=nearest(name, list(LAUNCHERS))
            )
        if name == LOCAL and arguments:
            raise UsageError(
                "--launcher-args has no effect on this machine.",
                next_step="Add --launcher slurm or --launcher ray, or leave it out.",
            )
        if name == SLURM and shutil.which("sbatch") is None:
            raise UsageError(
                "Slurm cannot be used here: there is no `sbatch` on the path.",
                next_step="Run this on a machine that submits jobs, or without --launcher.",
            )
        if name == RAY and importlib.util.find_spec("ray") is None:
            raise UsageError(
                "Ray is not installed.", next_step="pip install 'holo-cli[ray]', or leave out "
                "--launcher."
            )  # fmt: skip
        try:
            return cls(name, tuple(shlex.split(arguments)))
        except ValueError as error:
            raise UsageError(
                f"--launcher-args '{arguments}' cannot be read: {error}.",
                next_step="For example: --launcher-args '--partition=gpu --gpus=1'",
            ) from error

    def pool(self, folder: Path, size: int) -> JobPool:
        """At most `size` jobs at a time, with their files in `folder`."""
        if self.name == SLURM:
            from holo_cli.experiment.slurm import SlurmPool

            return SlurmPool(folder, size, self.arguments)
        if self.name == RAY:
            from holo_cli.experiment.ray_pool import RayPool

            return RayPool(folder, size, self.arguments)
        from holo_cli.experiment.worker_pool import WorkerPool

        return WorkerPool(folder, size)
