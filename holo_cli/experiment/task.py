"""One job of an experiment on a cluster: `python -m holo_cli.experiment.task FOLDER`.

The folder, on a disk that all machines share, has the job (`job.json`). The job runs in a worker
process, as it does on one machine; its events are appended to `events.jsonl`, and the last one is
written to `end.json`. A task that is asked to save and stop (a preemption, a time limit) ends with
code 3 and without `end.json`: started again in the same folder, it resumes.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from holo_cli.experiment.worker_pool import (
    DONE,
    FAILED,
    STOPPED_CODE,
    Event,
    WorkerProcess,
)
from holo_cli.files import atomic_write_text
from holo_cli.parsing import read_object

JOB, EVENTS, END, CANCEL = "job.json", "events.jsonl", "end.json", "cancel"


def run_task(folder: Path) -> int:
    """Run the job of a folder; its exit code: 0 with `end.json`, or 3 after a request to stop."""
    if (folder / END).exists():
        return 0
    job = read_object(folder / JOB, nan=True)
    started = time.monotonic()
    worker = WorkerProcess(job["job"], folder, _threads())
    worker.close_stdin()
    asked = _forward_signals(worker)
    last: Event | None = None
    with (folder / EVENTS).open("a", encoding="utf-8") as log:
        while (event := worker.next_event()) is not None:
            if event["event"] in (DONE, FAILED):
                last = event
                continue
            log.write(json.dumps(event) + "\n")
            log.flush()
    code = worker.process.wait()
    if last is None:
        # one that had not begun to listen for the request had nothing to save
        if code == STOPPED_CODE or (asked and code == -signal.SIGTERM):
            worker.close()
            return STOPPED_CODE
        last = worker.crash()
    worker.close()
    if event_machine := _machine(str(job["host"])):
        last["machine"] = event_machine
    last["wall_seconds"] = round(time.monotonic() - started, 2)
    atomic_write_text(folder / END, json.dumps(last))
    return 0


def _threads() -> int | None:
    """The cores that Slurm gave to this task; None: as many as torch chooses."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(given) if given.isdecimal() else None


def _forward_signals(worker: WorkerProcess) -> list[int]:
    """A request to stop is for the worker, which saves; this process waits for it. The list gets
    the number of each request."""
    asked: list[int] = []

    def forward(number: int, frame: Any) -> None:
        asked.append(number)
        with contextlib.suppress(OSError):
            worker.process.terminate()

    with contextlib.suppress(ValueError):  # not in the main thread, as Ray runs it
        signal.signal(signal.SIGTERM, forward)
        signal.signal(signal.SIGINT, forward)
    return asked


def _machine(host: str) -> dict[str, Any] | None:
    """This machine, where it is not the one that the experiment was started on."""
    if platform.node() == host:
        return None
    from holo_cli.experiment.machine import describe_machine

    return describe_machine()


def _requeue(folder: Path) -> None:
    """Ask Slurm to start this task again later, unless the experiment itself was stopped."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array is None or index is None or (folder / CANCEL).exists():
        return
    # Slurm does so by itself after a preemption: then it says that the job cannot be requeued
    subprocess.run(["scontrol", "requeue", f"{array}_{index}"], check=False, capture_output=True)


def main(arguments: list[str] | None = None) -> int:
    """FOLDER, or LIST: a file with a folder in each line, of which the task of a Slurm array takes
    the one with its number."""
    (given,) = sys.argv[1:] if arguments is None else arguments
    folder = Path(given)
    if folder.is_file():
        names = folder.read_text(encoding="utf-8").splitlines()
        folder = folder.parent / names[int(os.environ["SLURM_ARRAY_TASK_ID"])]
    code = run_task(folder)
    if code == STOPPED_CODE:
        _requeue(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
