"""Where scenarios happen: a folder, files of the world in it, and helpers to judge the rest."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import kills, verdict, world
from benchmarks.faults.mutations import copy_files
from benchmarks.faults.sandbox import ChildProcess, CommandLine, Outcome, Setup
from holo_cli.parsing import parse_json

_NEW_NAMESPACE, _NEW_USERS, _REMOUNT = 0x00020000, 0x10000000, 32  # of <sched.h> and <sys/mount.h>
NOBODY = 65534
WAIT_SECONDS = 60.0


@dataclass
class Place:
    """An empty folder for one scenario, the undamaged world, and undisturbed trainings."""

    folder: Path
    pristine: Path
    references: kills.References

    def bring(self, *names: str) -> None:
        """Copy files of the world here."""
        shutil.rmtree(self.folder, ignore_errors=True)
        copy_files(self.pristine, self.folder, names)

    def holo(self, *arguments: str, stdin: str = "", setup: Setup | None = None) -> CommandLine:
        """A command in this folder."""
        command = world.holo(self.folder, *arguments, stdin=stdin)
        command.setup = setup
        return command

    def train(self, *more: str, setup: Setup | None = None) -> CommandLine:
        """The training of which there is a reference, in this folder."""
        command = training(self.pristine, self.folder, *more)
        command.setup = setup
        return command

    def reference(self) -> Path:
        """The undisturbed training."""
        return self.references.of("vanilla", lambda where: training(self.pristine, where))[0]

    def resumed(self, *, log: bool = True) -> str:
        """Finish the run that a scenario disturbed; what differs from the undisturbed one.

        Without `log` its log may differ.
        """
        last = self.folder / "checkpoints/r_last.safetensors"
        if found := kills.half_written(self.folder):
            return found
        if not kills.finished(self.folder):
            again = self.holo("resume", "r") if last.exists() else self.train("--force")
            if found := clean(again.run(WAIT_SECONDS), 0):
                return found
        return kills.different(self.reference(), self.folder, log=log)


def training(pristine: Path, where: Path, *more: str) -> CommandLine:
    """The training that scenarios disturb."""
    return kills.training("vanilla", pristine / "data/tiny", where, *more)


def clean(outcome: Outcome, *codes: int) -> str:
    """What is wrong with an outcome that should have one of these exit codes."""
    found = verdict.fault(outcome, labelled=False)
    if not found and outcome.code not in codes:
        return f"exit code: {outcome.code} instead of {codes}: {outcome.stderr[-300:]}"
    return found


def wait_until(
    child: ChildProcess, condition: Callable[[], bool], seconds: float = WAIT_SECONDS
) -> bool:
    """Wait for a condition while the child runs; False if it ended first."""
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.001)
    return condition()


def saves(child: ChildProcess) -> int:
    """Checkpoints that a training has announced so far."""
    return sum(row["event"] == "save" for row in kills.events(child.output()))


# -- a disk of one's own --------------------------------------------------------------------------


def on_small_disk(
    folder: Path, kilobytes: int, scenario: Callable[[Callable[[int], None]], str]
) -> str:
    """Run the scenario in a process that has a tmpfs of this size at `folder`.

    The scenario gets a function that changes its size. "skipped: ..." where that is not allowed.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "unexplained: the scenario raised an exception"
        try:
            answer = _mounted(folder, kilobytes, scenario)
        except Exception as error:  # noqa: BLE001 - reported as the scenario's result
            answer = f"unexplained: {error!r}"
        finally:
            os.write(write, json.dumps(answer).encode()[:60_000])
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        raw = stream.read()
    os.waitpid(pid, 0)
    return str(parse_json(raw)) if raw else "unexplained: the scenario's process died"


def _mounted(folder: Path, kilobytes: int, scenario: Callable[[Callable[[int], None]], str]) -> str:
    if sys.platform != "linux":
        return "skipped: mount namespaces are Linux's"
    library = ctypes.CDLL(None, use_errno=True)
    flags = _NEW_NAMESPACE | (0 if os.geteuid() == 0 else _NEW_USERS)
    if library.unshare(flags) != 0:
        return "skipped: no namespaces here"
    private = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC: no mount leaves this process
    library.mount(b"none", b"/", None, private, None)

    def resize(size: int, flag: int = _REMOUNT) -> None:
        options = f"size={size}k".encode()
        if library.mount(b"small", str(folder).encode(), b"tmpfs", flag, options) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    try:
        resize(kilobytes, 0)
    except OSError:
        return "skipped: no mounts here"
    return scenario(resize)


def as_nobody() -> None:
    """In a child: give up the rights of root, who may write into read-only folders."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
