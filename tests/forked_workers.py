"""Processes that are forks of the test's own process, so that none imports torch again.

What they run, their pipes, working folder, environment and ends are those of real ones. Tests that
ask whether a fresh process starts at all use real ones.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, ClassVar, TextIO

import pytest

from holo_cli.experiment import worker, worker_pool
from holo_cli.speed import model_process


def _run_worker() -> int:
    worker.keep_stdout()
    return worker.main()


def _run_model_process() -> int:
    model_process.main()
    return 0


MAINS: dict[tuple[str, ...], Callable[[], int]] = {
    tuple(worker_pool.WORKER): _run_worker,
    model_process.PROCESS: _run_model_process,
}

IMPORTED = (
    "holo_cli.checkpoint",
    "holo_cli.data.dataset",
    "holo_cli.speed.step_benchmark",
    "holo_cli.tasks.train",
    "holo_cli.training.calibrate",
    "holo_cli.training.evaluate",
    "holo_cli.training.run",
)


class ForkedWorker:
    """As much of `subprocess.Popen` as worker processes use."""

    _ours: ClassVar[list[TextIO]] = []  # the parent's ends of all pipes: no child keeps them

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None,
        env: Mapping[str, str],
        stderr: IO[bytes],
        encoding: str,
        errors: str,
        **_: object,
    ) -> None:
        main = MAINS[tuple(command)]
        to_read, to_write = os.pipe(), os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            ends = [stream.fileno() for stream in self._ours if not stream.closed]
            for end in (to_read[1], to_write[0], *ends):
                os.close(end)
            _become(main, (to_read[0], to_write[1], stderr.fileno()), cwd, env)
        os.close(to_read[0])
        os.close(to_write[1])
        self.stdin = os.fdopen(to_read[1], "w", encoding=encoding)
        self.stdout = os.fdopen(to_write[0], encoding=encoding, errors=errors)
        self._ours[:] = [s for s in self._ours if not s.closed] + [self.stdin, self.stdout]
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the number of the signal that ended it."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self.returncode is None:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                    if pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
            if self.returncode is not None:
                return self.returncode
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked worker", timeout or 0.0)
            time.sleep(0.002)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with self._lock:
            if self.returncode is None:
                os.kill(self.pid, number)


def run_module(name: str, *arguments: str, env: Mapping[str, str], timeout: float) -> str:
    """What a module printed that must end with 0 and in time, see `end_of_module`."""
    code, text = end_of_module(name, *arguments, env=env, timeout=timeout)
    assert code == 0, text
    return text


def end_of_module(
    name: str, *arguments: str, env: Mapping[str, str], timeout: float
) -> tuple[int | None, str]:
    """`python -m NAME ARGUMENTS`, whose `main()` returns its exit code: that code, and what it
    printed.

    On Linux a fork that has this process's imports. None, and it is killed with its own processes,
    where it does not end in time.
    """
    with tempfile.TemporaryFile() as said:
        if sys.platform == "linux":
            main = importlib.import_module(name).main
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                sys.argv = [name, *arguments]
                nothing = os.open(os.devnull, os.O_RDONLY)
                _become(main, (nothing, said.fileno(), said.fileno()), None, env)
            wait: Callable[[], int | None] = functools.partial(_ended, pid)
        else:
            process = subprocess.Popen(
                [sys.executable, "-m", name, *arguments], env=env, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
            pid, wait = process.pid, process.poll
        end = time.monotonic() + timeout
        while (code := wait()) is None and time.monotonic() < end:
            time.sleep(0.01)
        if code is None:
            os.killpg(pid, signal.SIGKILL)
            while wait() is None:
                time.sleep(0.01)
        said.seek(0)
        return code, said.read().decode("utf-8", errors="replace")


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(
    main: Callable[[], int], streams: tuple[int, int, int], cwd: Path | None, env: Mapping[str, str]
) -> None:
    """The rest of a fork's life: what a new process would do, from its standard streams on."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not as the command of the parent has it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(env)
        if cwd is not None:
            os.chdir(cwd)
        import torch

        torch.set_num_threads(int(env.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must not run its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forks where forks are safe: not beside the threads of macOS's libraries."""
    if sys.platform == "linux":
        for name in IMPORTED:  # once, and not in every fork
            importlib.import_module(name)
        popen = SimpleNamespace(
            Popen=ForkedWorker, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
        )
        monkeypatch.setattr(worker_pool, "subprocess", popen)
