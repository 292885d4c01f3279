"""Pools of a cluster: jobs and events go through a folder that all machines see.

A job that is started gets a folder with `job.json`; `task.py`, which the cluster starts somewhere,
appends events to a file there and writes the last one. This process only reads these files, so it
may be killed and started again: it then finds the tasks that are still under way, and the results
of those that ended meanwhile.
"""

from __future__ import annotations

import platform
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from holo_cli.experiment.task import CANCEL, END, EVENTS, JOB
from holo_cli.experiment.worker_pool import (
    FAILED,
    LOCK,
    POLL_SECONDS,
    STOP_SECONDS,
    STOPPED,
    Event,
    Job,
    WorkerEvent,
    occupy,
)
from holo_cli.files import atomic_write_json, file_lock
from holo_cli.parsing import ParseError, parse_object, read_object

TASK_COMMAND = [sys.executable, "-m", "holo_cli.experiment.task"]
TASK = "task.json"  # which task of the cluster a folder's job is
LOST_SECONDS = 30.0  # until a task that the cluster no longer knows, and that left no end, is lost


@dataclass
class _Running:
    job: Job
    task: str = ""  # the cluster's name for it; "" until it is submitted
    read: int = 0  # bytes of its events that were read
    gone: float | None = None  # since when the cluster does not know it


class SharedFolderPool(ABC):
    """What Slurm and Ray share; see `launchers.JobPool`."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder.resolve(), size
        self._jobs: dict[str, _Running] = {}
        self._events: deque[WorkerEvent] = deque()
        self._lock = file_lock(self.folder / LOCK)
        self._orphans_ended = False

    # -- what a cluster must do -------------------------------------------------------------------

    @abstractmethod
    def submit(self, keys: Sequence[str]) -> list[str]:
        """Have `task.py` run in each of these folders; a name for each task. Raises DataError."""

    @abstractmethod
    def alive(self) -> set[str] | None:
        """The tasks that wait or run; None where the cluster does not answer."""

    @abstractmethod
    def cancel(self, tasks: Sequence[str]) -> None:
        """Ask tasks to save and exit; they are not started again."""

    # -- the pool ---------------------------------------------------------------------------------

    def __enter__(self) -> SharedFolderPool:
        """Raises DataError when another process uses this folder."""
        occupy(self.folder, self._lock)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._lock.release()
        if not any(path.is_dir() for path in self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> Collection[str]:
        return self._jobs.keys()

    @property
    def has_room(self) -> bool:
        return len(self._jobs) < self.size

    def start(self, job: Job) -> None:
        """Prepare a job's folder. It is submitted with the others at the next `next_event`; a job
        that an earlier process submitted, and that waits or runs, is not submitted again."""
        folder = self.folder / job.key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CANCEL).unlink(missing_ok=True)
        content = {"job": {"task": job.task, **job.settings}, "host": platform.node()}
        atomic_write_json(folder / JOB, content, indent=None)
        running = _Running(job)
        if (task := self._submitted(folder)) and not (folder / END).exists():
            alive = self.alive()
            running.task = task if alive is None or task in alive else ""
        self._jobs[job.key] = running

    def next_event(self, timeout: float) -> WorkerEvent | None:
        self._submit_waiting()
        end = time.monotonic() + timeout
        while not self._events:
            self._look()
            if self._events or time.monotonic() >= end:
                break
            time.sleep(min(POLL_SECONDS, timeout))
        if not self._events:
            return None
        received = self._events.popleft()
        if received.is_last:
            self._jobs.pop(received.job.key, None)
        return received

    def clean_up(self, received: WorkerEvent) -> None:
        if received.is_last and received.event["event"] != STOPPED:
            shutil.rmtree(self.folder / received.job.key, ignore_errors=True)

    def clear(self) -> None:
        assert not self._jobs
        self._end_orphans()
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)

    def stop(self) -> None:
        for key in self._jobs:
            (self.folder / key / CANCEL).touch()
        self._cancel_and_wait([one.task for one in self._jobs.values() if one.task])
        self._jobs.clear()

    # -- the steps --------------------------------------------------------------------------------

    def _submitted(self, folder: Path) -> str:
        try:
            return str(read_object(folder / TASK)["task"])
        except (OSError, ParseError, KeyError):
            return ""

    def _submit_waiting(self) -> None:
        self._end_orphans()
        waiting = [
            key
            for key, one in self._jobs.items()
            if not one.task and not (self.folder / key / END).exists()
        ]
        if not waiting:
            return
        for key, task in zip(waiting, self.submit(waiting), strict=True):
            self._jobs[key].task = task
            atomic_write_json(self.folder / key / TASK, {"task": task})

    def _end_orphans(self) -> None:
        """Cancel what an earlier process submitted and is not asked for at present: these tasks
        would run beside those of this process, in the same folders."""
        if self._orphans_ended:
            return
        self._orphans_ended = True
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        tasks = {p.name: self._submitted(p) for p in folders if p.name not in self._jobs}
        alive = self.alive() if any(tasks.values()) else None
        orphans = [key for key, task in tasks.items() if alive and task in alive]
        for key in orphans:
            (self.folder / key / CANCEL).touch()
        self._cancel_and_wait([tasks[key] for key in orphans])

    def _cancel_and_wait(self, tasks: Sequence[str]) -> None:
        if not tasks:
            return
        self.cancel(tasks)
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end:
            alive = self.alive()
            if alive is not None and not alive & set(tasks):
                return
            time.sleep(POLL_SECONDS)

    def _look(self) -> None:
        """Queue what the tasks have written since."""
        alive = self.alive()
        for key, one in self._jobs.items():
            folder = self.folder / key
            ended = (folder / END).exists()  # before the events: none comes after it
            self._read_events(one, folder)
            if ended:
                self._events.append(WorkerEvent(one.job, read_object(folder / END, nan=True)))
            elif alive is None or not one.task or one.task in alive:
                one.gone = None
            elif one.gone is None:
                one.gone = time.monotonic()
            elif time.monotonic() - one.gone > LOST_SECONDS:
                self._events.append(WorkerEvent(one.job, self._lost(one, folder)))

    def _read_events(self, one: _Running, folder: Path) -> None:
        try:
            with (folder / EVENTS).open("rb") as file:
                file.seek(one.read)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines[:-1]:  # the last one has not ended yet
            one.read += len(line) + 1
            try:
                self._events.append(WorkerEvent(one.job, parse_object(line, nan=True)))
            except ParseError:
                continue  # cut off when the task was killed

    def _lost(self, one: _Running, folder: Path) -> Event:
        """The last event of a task that ended without one."""
        try:
            text = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        last = f": {lines[-1]}" if lines else ""
        why = f"task {one.task} of the cluster ended without a result{last}"
        return {"event": FAILED, "kind": "crash", "error": why, "stderr": lines[-15:]}
