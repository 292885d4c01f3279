"""Commands of holo in forked children: thousands of starts without thousands of imports of torch.

The parent imports everything once and starts no thread; each command runs in a child of its own,
through holo's entry point, with a folder, streams and limits of its own. Its damage ends with it.
POSIX only: there is no fork on Windows.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil

# FAULTS_PATIENCE: so many times as long, beside other work
HANG_SECONDS = 10.0 * float(os.environ.get("FAULTS_PATIENCE", "1"))
ADDRESS_SPACE = 4 << 30  # bytes beyond the parent's; what asks for more meets MemoryError
SHOWN_BYTES = 1 << 20  # of each stream that are kept
CRASHED = 99  # exit code of a child whose command raised past holo's own error table

Setup = Callable[[], None]


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `code` None: a signal ended it, or the watchdog (`hung`).

    On a terminal (`CommandLine.terminal`) all output is in `stderr`, as one text.
    """

    code: int | None
    signal: int
    stdout: str
    stderr: str
    seconds: float
    grown: int  # bytes of resident memory at its peak, beyond the parent's
    hung: bool = False
    terminal: bool = False
    generates: bool = False  # its stdout is the text of a model


@dataclass
class CommandLine:
    """A command line in a folder, and what is special about its process."""

    arguments: Sequence[str]
    folder: Path
    stdin: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    setup: Setup | None = None  # called in the child, before the command
    terminal: bool = False  # stdout and stderr are a terminal

    def start(self) -> ChildProcess:
        return ChildProcess(self)

    def run(self, limit: float = HANG_SECONDS) -> Outcome:
        """Run it to its end, or kill it after `limit` seconds."""
        with self.start() as child:
            return child.wait(limit)


def warm_up() -> None:
    """Import in the parent what commands import, so that no child has to. Starts no thread."""
    import encodings.cp949
    import encodings.utf_8_sig

    import pyarrow.parquet
    import sentencepiece
    import tiktoken
    import tokenizers
    import torch
    import torch.utils.tensorboard
    import typer.main
    import zstandard

    import holo_cli.bench.compare.run
    import holo_cli.cli.compute
    import holo_cli.cli.progress
    import holo_cli.data.cleaning
    import holo_cli.data.prepare.prepare
    import holo_cli.data.sources.readers
    import holo_cli.data.tokenizers.bpe
    import holo_cli.data.tokenizers.sentencepiece_
    import holo_cli.export
    import holo_cli.inference.chat.terminal
    import holo_cli.inference.evaluation.evaluate
    import holo_cli.inference.generation.samples
    import holo_cli.training.run
    import holo_cli.visualize.training
    from holo_cli import registry
    from holo_cli.cli.app import app

    del encodings, pyarrow, sentencepiece, tiktoken, tokenizers, zstandard, holo_cli
    torch.set_num_threads(1)
    for name in registry.model_names():
        registry.config_class(name)
        registry.model_class(name)
    # Typer builds all commands again at every call, which takes longer than most cases
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)
    gc.freeze()  # pages that no child's garbage collection touches stay shared


class ChildProcess:
    """A running command; `with` ends it in any case."""

    def __init__(self, command: CommandLine) -> None:
        self.command = command
        self._streams: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
        self._streams[0].write(command.stdin.encode("utf-8", "surrogateescape"))
        self._streams[0].seek(0)
        sys.stdout.flush()
        sys.stderr.flush()
        self._before = mmap.mmap(-1, 8)  # the child's resident bytes at its start, shared with it
        self._started = time.monotonic()
        self._ended: Outcome | None = None
        self._screen = bytearray()
        descriptors = [stream.fileno() for stream in self._streams]
        self._terminal = -1
        if command.terminal:
            self._terminal, inside = os.openpty()
            os.set_blocking(self._terminal, False)
            descriptors[1:] = [inside, inside]
        self.pid = os.fork()
        if self.pid == 0:
            _run_and_exit(command, descriptors, self._before)
        if command.terminal:
            os.close(inside)

    def _read_screen(self) -> None:
        """Take what the terminal has shown; a terminal that nobody reads blocks its writer."""
        with contextlib.suppress(OSError):  # nothing there, or its last process has ended
            while raw := os.read(self._terminal, 65_536):
                self._screen += raw[: SHOWN_BYTES - len(self._screen)]

    def output(self, number: int = 1) -> str:
        """What it has written so far to stdout (1) or stderr (2)."""
        if self.command.terminal:
            self._read_screen()
            text = self._screen.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
            return text if number == 2 else ""
        size = os.fstat(self._streams[number].fileno()).st_size
        raw = os.pread(self._streams[number].fileno(), min(size, SHOWN_BYTES), 0)
        return raw.decode("utf-8", "surrogateescape")

    def poll(self) -> Outcome | None:
        """Its end, if it has ended."""
        if self.command.terminal:
            self._read_screen()
        if self._ended is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._ended = self._outcome(status, used.ru_maxrss)
        return self._ended

    def wait(self, limit: float = HANG_SECONDS) -> Outcome:
        """Wait for its end; it is killed once it has run for `limit` seconds in all."""
        pause = 0.001
        while (ended := self.poll()) is None:
            if time.monotonic() - self._started > limit:
                os.kill(self.pid, signal.SIGKILL)
                _, status, used = os.wait4(self.pid, 0)
                self._ended = self._outcome(status, used.ru_maxrss, hung=True)
                return self._ended
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        return ended

    def _outcome(self, status: int, peak: int, hung: bool = False) -> Outcome:
        kilo = 1 if sys.platform == "darwin" else 1024
        return Outcome(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            stdout=self.output(1),
            stderr=self.output(2),
            seconds=time.monotonic() - self._started,
            grown=max(0, peak * kilo - int.from_bytes(self._before[:8], "little")),
            hung=hung,
            terminal=self.command.terminal,
            generates=self.command.arguments[:1] in (("generate",), ("chat",)),
        )

    def kill(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for stream in self._streams:
            stream.close()
        if self._terminal >= 0:
            os.close(self._terminal)


def _stream(descriptor: int, mode: str, errors: str) -> Any:
    """A standard stream; None where it is closed."""
    try:
        return open(descriptor, mode, 1 if descriptor == 2 else -1, "utf-8", errors, closefd=False)
    except OSError:
        return None


def _run_and_exit(command: CommandLine, streams: Sequence[int], resident: mmap.mmap) -> None:
    """In the child: never returns."""
    code = CRASHED
    try:
        # `nohup` and shells start background processes with some of these ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for ignored in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(ignored, signal.SIG_DFL)
        os.environ.setdefault("TERM", "xterm")
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.chdir(command.folder)
        os.environ.update(command.environment)
        faulthandler.dump_traceback_later(HANG_SECONDS - 0.5, file=2)
        used = psutil.Process().memory_info()
        resident[:8] = used.rss.to_bytes(8, "little")
        resource.setrlimit(resource.RLIMIT_AS, (used.vms + ADDRESS_SPACE, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
        if command.setup is not None:
            command.setup()
        # as Python makes them at its start; the parent's are of the parent's files
        sys.stdin = _stream(0, "r", "surrogateescape")
        sys.stdout = _stream(1, "w", "strict")
        sys.stderr = _stream(2, "w", "backslashreplace")
        from holo_cli.__main__ import main

        code = main(list(command.arguments))
    except BaseException:  # noqa: BLE001 - whatever it was, it belongs into the outcome
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or None
                stream.flush()
        os._exit(code)
