"""Worker processes: each runs one job and emits events as JSON lines on its stdout.

`WorkerProcess` starts one. `WorkerPool` runs several side by side, each in a working folder named
after its job's key, so that a job that was stopped finds its files again. `run_jobs` keeps a pool
busy until no job is left or a stop is requested. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import BaseFileLock, Timeout

import holo_cli
from holo_cli import plugins
from holo_cli.errors import DataError
from holo_cli.experiment.launchers import Launcher
from holo_cli.files import file_lock
from holo_cli.parsing import ParseError, parse_object

Event = dict[str, Any]
DONE, FAILED, STOPPED = "result", "failed", "stopped"  # kinds of a job's last event
STOPPED_CODE = 3  # a worker's exit code after a requested stop
STOP_SECONDS = 120.0  # time for stopped workers to save
POLL_SECONDS = 0.2  # between looks at the request to stop
LOCK = ".lock"
LOCAL_LAUNCHER = Launcher()
WORKER = [sys.executable, "-m", "holo_cli.experiment.worker"]


class WorkerProcess:
    """A process that gets a job on stdin and emits events. `folder` is its working folder."""

    def __init__(
        self,
        job: Mapping[str, Any],
        folder: Path | None = None,
        threads: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """`threads` None: as many as torch chooses. `command` None: `WORKER`."""
        self._stderr: IO[bytes] = (
            tempfile.TemporaryFile() if folder is None else (folder / "stderr.txt").open("w+b")  # noqa: SIM115
        )
        self.process = subprocess.Popen(
            command or WORKER,
            cwd=folder,
            env=worker_environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C in the terminal goes to the parent, which then stops its workers; a session of
            # its own would do too, but Linux shares processor time by sessions
            process_group=None if sys.platform == "win32" else 0,
        )
        self.send(job)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a line to stdin. A dead process ignores it: `crash` returns the reason."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def next_event(self) -> Event | None:
        """Wait for the next event; None after the last one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = parse_object(line, nan=True)
            except ParseError:
                continue  # printed by a library
            if "event" in event:
                return event
        return None

    def crash(self) -> Event:
        """The "failed" event of a process that ended without one: its signal or last error line."""
        code = self.process.wait()
        self._stderr.seek(0)
        text = self._stderr.read().decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if code < 0:
            why = f"ended by signal {-code} ({signal.Signals(-code).name})"
            why += "; out of memory?" if code == -9 else ""
        else:
            why = lines[-1] if lines else f"ended with exit code {code}"
        return {"event": FAILED, "kind": "crash", "error": why, "stderr": lines[-15:]}

    def close(self, seconds: float = 5.0) -> None:
        """Close its pipes and end it: it has so many seconds to exit before it is killed."""
        self.close_stdin()
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdout.close()
        self._stderr.close()


def worker_environment(threads: int | None) -> dict[str, str]:
    environment = {**os.environ, **plugins.environment()}
    # import the tree that this process runs from, whether it is installed or not
    tree = str(Path(holo_cli.__file__).resolve().parents[1])
    paths = [tree, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
    return environment


@dataclass(frozen=True)
class Job:
    """`task` names a function of the worker, `settings` is its argument."""

    key: str
    task: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerEvent:
    """An event of a job: one of training's, or its last one, whose `event["event"]` is "result"
    (finished), "failed" (with "kind" and "error") or "stopped"."""

    job: Job
    event: Event

    @property
    def is_last(self) -> bool:
        return self.event["event"] in (DONE, FAILED, STOPPED)


def occupy(folder: Path, lock: BaseFileLock) -> None:
    """Create the folder of a pool and lock it. Raises DataError when another process uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise DataError(
            f"Another process is at work in {folder}.",
            next_step="Wait for it, or name another page with --out.",
        ) from None


class WorkerPool:
    """At most `size` workers. Use as a context manager: leaving it stops those still running.

    With more than one worker each gets `cores // size` threads, at least one.
    """

    def __init__(self, folder: Path, size: int = 1) -> None:
        self.folder, self.size = folder, size
        self.threads = None if size == 1 else max(1, (os.cpu_count() or 1) // size)
        self.running: dict[str, WorkerProcess] = {}
        self._lock = file_lock(folder / LOCK)
        self._stopping = False
        self._events: queue.Queue[WorkerEvent] = queue.Queue()

    def __enter__(self) -> WorkerPool:
        """Raises DataError when another process uses this folder."""
        occupy(self.folder, self._lock)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._lock.release()
        if {path.name for path in self.folder.iterdir()} <= {LOCK}:
            shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Delete the folders of stopped jobs that are no longer asked for."""
        assert not self.running
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path, ignore_errors=True)

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.size

    def start(self, job: Job) -> None:
        """Start a job; there must be room."""
        assert self.has_room
        folder = self.folder / job.key
        folder.mkdir(parents=True, exist_ok=True)
        worker = WorkerProcess({"task": job.task, **job.settings}, folder, self.threads)
        worker.close_stdin()
        self.running[job.key] = worker
        threading.Thread(target=self._read_events, args=(job, worker), daemon=True).start()

    def next_event(self, timeout: float) -> WorkerEvent | None:
        """The next event of any worker; None after `timeout` seconds without one."""
        try:
            received = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if received.is_last:
            self.running.pop(received.job.key, None)
        return received

    def clean_up(self, received: WorkerEvent) -> None:
        """Delete a finished job's folder, once its event is stored. A stopped job keeps its own."""
        if received.is_last and received.event["event"] != STOPPED:
            shutil.rmtree(self.folder / received.job.key, ignore_errors=True)

    def stop(self) -> None:
        """Ask every worker to save and exit, and wait for them."""
        self._stopping = True
        for worker in self.running.values():
            worker.process.terminate()
        for worker in self.running.values():
            try:
                worker.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.running.clear()

    def _read_events(self, job: Job, worker: WorkerProcess) -> None:
        """Queue a worker's events; the last one queued always ends the job."""
        last: Event | None = None
        while (event := worker.next_event()) is not None:
            if event["event"] in (DONE, FAILED):
                last = event
            else:
                self._events.put(WorkerEvent(job, event))
        code = worker.process.wait()
        if last is None:
            stopped = code == STOPPED_CODE or self._stopping
            last = {"event": STOPPED} if stopped else worker.crash()
        worker.close()
        self._events.put(WorkerEvent(job, last))


def run_jobs(
    todo: Callable[[], Iterable[Job]],
    on_event: Callable[[WorkerEvent], None],
    folder: Path,
    size: int,
    stop: Callable[[], bool],
    launcher: Launcher = LOCAL_LAUNCHER,
) -> bool:
    """Run jobs, `size` at a time, until `todo` returns none; False if `stop` ended it before.

    `todo` returns all unfinished jobs, in order. It may be slow, so it is called only at the start
    and when a job has ended; `on_event` must see to it that such a job is not returned again.
    """
    with launcher.pool(folder, size) as pool:
        ask = True
        while True:
            waiting = iter(todo() if ask else ())
            while not stop() and pool.has_room:
                job = next((job for job in waiting if job.key not in pool.running), None)
                if job is None:
                    break
                pool.start(job)
            if stop():
                pool.stop()
                return False
            if not pool.running:
                pool.clear()
                return True
            while (received := pool.next_event(POLL_SECONDS)) is None and not stop():
                pass
            if received is not None:
                on_event(received)
                pool.clean_up(received)
            ask = received is not None and received.is_last
