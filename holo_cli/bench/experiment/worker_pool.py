"""Runs jobs in processes of their own, some side by side, until they end or a stop is asked for.

A job is plain data and has a key; its working folder is named after the key, so that a job that was
stopped finds what it left there. `WorkerPool` starts jobs and returns their events; `run_jobs`
asks again what there is to do each time a worker is free. Needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

import holo_cli
from holo_cli import plugins
from holo_cli.errors import DataError
from holo_cli.files import file_lock

Event = dict[str, Any]
DONE = "result"
STOPPED = 3  # a worker's exit code after a stop on request
STOP_SECONDS = 120.0  # seconds that stopped workers have to save
POLL_SECONDS = 0.2  # seconds between looks at a request to stop
LOCK = ".lock"
WORKER = [sys.executable, "-m", "holo_cli.bench.experiment.worker"]


def emit(event: Event) -> None:
    """Tell the parent process something, as a line on stdout."""
    print(json.dumps(event, ensure_ascii=True, allow_nan=True), flush=True)


@dataclass(frozen=True)
class Job:
    """What to do: `task` names a function of the worker, `settings` is its argument."""

    key: str
    task: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerEvent:
    """Something a job said. `event["event"]` is one of training's, or one of these three:
    "result" (ended well), "failed" (with "kind" and "error"), "stopped"."""

    job: Job
    event: Event

    @property
    def ended(self) -> bool:
        return self.event["event"] in (DONE, "failed", "stopped")


class WorkerPool:
    """At most `size` workers. Use as a context manager: leaving it ends those that still run.

    With more than one worker each is given `cores // size` threads, at least one.
    """

    def __init__(self, folder: Path, size: int = 1) -> None:
        self.folder, self.size = folder, size
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._lock = file_lock(folder / LOCK)
        self._stopping = False
        self._heard: queue.Queue[WorkerEvent] = queue.Queue()

    def __enter__(self) -> WorkerPool:
        """Raises DataError when another process works in this folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise DataError(
                f"Another process is at work in {self.folder}.",
                next_step="Wait for it, or name another page with --out.",
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._lock.release()
        if {path.name for path in self.folder.iterdir()} <= {LOCK}:
            shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Delete what stopped jobs left, once nothing is left to do: of settings since changed."""
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
        place = self.folder / job.key
        place.mkdir(parents=True, exist_ok=True)
        with (place / "stderr.txt").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                WORKER,
                cwd=place,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C in the terminal is for the parent, which then asks its workers to stop;
                # a session of its own would keep it out too, but Linux shares time by sessions
                process_group=None if sys.platform == "win32" else 0,
            )
        assert process.stdin is not None
        # a worker that died at once takes no job: what it left on stderr is told with its end
        with contextlib.suppress(BrokenPipeError), process.stdin:
            json.dump({"task": job.task, **job.settings}, process.stdin)
        self.running[job.key] = process
        threading.Thread(target=self._listen, args=(job, process), daemon=True).start()

    def next_event(self, timeout: float) -> WorkerEvent | None:
        """The next thing a worker said; None if none did within `timeout` seconds."""
        try:
            told = self._heard.get(timeout=timeout)
        except queue.Empty:
            return None
        if told.ended:
            self.running.pop(told.job.key, None)
        return told

    def tidy(self, told: WorkerEvent) -> None:
        """Delete what a job left that ended, once what it said is safe. A stopped one goes on."""
        if told.ended and told.event["event"] != "stopped":
            shutil.rmtree(self.folder / told.job.key, ignore_errors=True)

    def stop(self) -> None:
        """Ask every worker to save and end, and wait until they have."""
        self._stopping = True
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()

    def _listen(self, job: Job, process: subprocess.Popen[str]) -> None:
        """Pass on a worker's lines; the last thing heard of it is always its end."""
        assert process.stdout is not None
        end: Event | None = None
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # something that a library printed
            if not isinstance(event, dict) or "event" not in event:
                continue
            if event["event"] in (DONE, "failed"):
                end = event
            else:
                self._heard.put(WorkerEvent(job, event))
        code = process.wait()
        if end is None:
            asked = code == STOPPED or self._stopping
            end = {"event": "stopped"} if asked else self._crash(job, code)
        self._heard.put(WorkerEvent(job, end))

    def _crash(self, job: Job, code: int) -> Event:
        """A worker that ended without a word: its last line on stderr says most."""
        log = self.folder / job.key / "stderr.txt"
        lines = (
            log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        )
        said = [line.strip() for line in lines if line.strip()]
        if code < 0:
            why = f"ended by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        else:
            why = said[-1] if said else f"ended with exit code {code}"
        return {"event": "failed", "kind": "crash", "error": why, "stderr": said[-15:]}

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **plugins.environment()}
        # the tree this process runs from, installed or not
        tree = str(Path(holo_cli.__file__).resolve().parents[1])
        paths = [tree, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if self.size > 1:
            threads = str(max(1, (os.cpu_count() or 1) // self.size))
            environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = threads
        return environment


def run_jobs(
    todo: Callable[[], Iterable[Job]],
    heard: Callable[[WorkerEvent], None],
    folder: Path,
    size: int,
    stop: Callable[[], bool],
) -> bool:
    """Do jobs, `size` at a time, until `todo` names none; False if `stop` ended it before.

    `todo` names all that is not done, in order. It may be slow, so it is asked only at the start
    and when a job has ended; `heard` must see to it that such a job is not named again.
    """
    with WorkerPool(folder, size) as crew:
        look = True
        while True:
            waiting = iter(todo() if look else ())
            while not stop() and crew.has_room:
                job = next((job for job in waiting if job.key not in crew.running), None)
                if job is None:
                    break
                crew.start(job)
            if stop():
                crew.stop()
                return False
            if not crew.running:
                crew.clear()
                return True
            while (told := crew.next_event(POLL_SECONDS)) is None and not stop():
                pass
            if told is not None:
                heard(told)
                crew.tidy(told)
            look = told is not None and told.ended
