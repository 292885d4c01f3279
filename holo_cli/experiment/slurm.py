"""Jobs as tasks of Slurm arrays: `--launcher slurm`.

All jobs that are ready are submitted as one array. A task that is preempted, or reaches the time
limit of its partition, saves its run and is queued again; it resumes where it was. Options of
sbatch come from `--launcher-args` and from Slurm's own variables (SBATCH_PARTITION, ...).
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from holo_cli.errors import DataError
from holo_cli.experiment import shared_folder
from holo_cli.experiment.shared_folder import SharedFolderPool
from holo_cli.experiment.worker_pool import worker_environment

ARRAY = 1000  # tasks in an array: Slurm's own limit (MaxArraySize) is 1001 unless it was raised
QUEUE_SECONDS = 5.0  # between looks at the queue
SAVE_SECONDS = 120  # before the time limit a task is asked to save
COMMAND_SECONDS = 60.0  # for an answer of Slurm


class SlurmPool(SharedFolderPool):
    """See `SharedFolderPool`. `arguments`: more options of sbatch."""

    def __init__(self, folder: Path, size: int, arguments: Sequence[str] = ()) -> None:
        super().__init__(folder, size)
        self.arguments = list(arguments)
        self._queue: set[str] | None = None
        self._looked = float("-inf")

    def submit(self, keys: Sequence[str]) -> list[str]:
        return [
            task
            for at in range(0, len(keys), ARRAY)
            for task in self._submit_array(keys[at : at + ARRAY])
        ]

    def _submit_array(self, keys: Sequence[str]) -> list[str]:
        name = self.folder / f"array-{secrets.token_hex(4)}"
        names = name.with_suffix(".txt")
        names.write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
        script = name.with_suffix(".sh")
        # exec: Slurm's signals then go to Python itself
        command = shlex.join([*shared_folder.TASK_COMMAND, str(names)])
        script.write_text(f"#!/bin/sh\nexec {command}\n", encoding="utf-8")
        answer = _call(
            "sbatch", "--parsable", "--requeue", f"--array=0-{len(keys) - 1}",
            f"--signal=B:TERM@{SAVE_SECONDS}", "--open-mode=append", f"--chdir={self.folder}",
            "--job-name=holo", f"--output={self.folder}/slurm-%A_%a.log", *self.arguments,
            str(script),
        )  # fmt: skip
        array = answer.stdout.strip().split(";")[0]
        if answer.returncode or not array.isdecimal():
            said = (answer.stderr or answer.stdout).strip().split("\n")[0]
            raise DataError(
                f"sbatch did not accept the runs: {said or f'exit code {answer.returncode}'}.",
                next_step="Check --launcher-args, for example: --launcher-args '--partition=gpu'",
            )
        self._looked = float("-inf")
        return [f"{array}_{index}" for index in range(len(keys))]

    def alive(self) -> set[str] | None:
        if time.monotonic() - self._looked > QUEUE_SECONDS:
            answer = _call("squeue", "--me", "--noheader", "--array", "--format=%F_%K")
            self._queue = set(answer.stdout.split()) if answer.returncode == 0 else None
            self._looked = time.monotonic()
        return self._queue

    def cancel(self, tasks: Sequence[str]) -> None:
        _call("scancel", *tasks)
        self._looked = float("-inf")


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm. One that cannot be run or does not answer has exit code 127."""
    try:
        return subprocess.run(
            command,
            env=worker_environment(None),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
