"""Jobs as tasks of Ray: `--launcher ray` (the extra `ray`).

Ray is started on this machine unless RAY_ADDRESS names a cluster. `--launcher-args` gives the
resources of a task: `num_cpus=1`, `num_gpus=0.25`, or those with names of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holo_cli.errors import UsageError
from holo_cli.experiment import shared_folder
from holo_cli.experiment.shared_folder import SharedFolderPool
from holo_cli.experiment.worker_pool import worker_environment

PLAIN = ("num_cpus", "num_gpus", "memory")


def resources(arguments: Sequence[str]) -> dict[str, Any]:
    """Ray's options of a task from NAME=NUMBER. Raises UsageError.

    >>> resources(["num_gpus=0.25", "fast=1"])
    {'num_gpus': 0.25, 'resources': {'fast': 1.0}}
    """
    found: dict[str, Any] = {}
    for argument in arguments:
        name, _, text = argument.partition("=")
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not name or number < 0:
            raise UsageError(
                f"--launcher-args: '{argument}' is no resource of Ray.",
                next_step="For example: --launcher-args 'num_cpus=1 num_gpus=0.25'",
            )
        if name in PLAIN:
            found[name] = number
        else:
            found.setdefault("resources", {})[name] = number
    return found


def _run(command: list[str], environment: dict[str, str]) -> int:
    """One task, in a process of Ray: `task.py` in a process of its own, which is asked to save when
    the task is cancelled."""
    import subprocess

    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    finally:  # Ray cancels with KeyboardInterrupt
        if process.poll() is None:
            process.terminate()
            process.wait()


class RayPool(SharedFolderPool):
    """See `SharedFolderPool`. A task whose machine is lost is started again by Ray."""

    def __init__(self, folder: Path, size: int, arguments: Sequence[str] = ()) -> None:
        super().__init__(folder, size)
        self.resources = resources(arguments)
        self._refs: dict[str, Any] = {}

    def __enter__(self) -> RayPool:
        import ray

        super().__enter__()
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
        return self

    def submit(self, keys: Sequence[str]) -> list[str]:
        import ray

        options = {"max_retries": -1, **self.resources}
        task = ray.remote(_run).options(**options)
        names = []
        for key in keys:
            ref = task.remote(
                [*shared_folder.TASK_COMMAND, str(self.folder / key)], worker_environment(None)
            )
            self._refs[ref.hex()] = ref
            names.append(ref.hex())
        return names

    def alive(self) -> set[str] | None:
        import ray

        if not self._refs:
            return set()
        refs = list(self._refs.values())
        _, waiting = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return {ref.hex() for ref in waiting}

    def cancel(self, tasks: Sequence[str]) -> None:
        import ray

        for name in tasks:
            if name in self._refs:
                ray.cancel(self._refs[name], recursive=False)
