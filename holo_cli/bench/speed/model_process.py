"""Processes that each hold one model and work when asked, one at a time.

A process of its own gives each model its own peak memory, and lets the parent measure all of them
in turn, round after round, while they stay warm. What goes wrong in one, up to being killed, ends
that one only: its row says so and the others go on.

    python -m holo_cli.bench.speed.model_process    # one JSON object a line in, one out

The first line says what to build: {"probe": "training", "config": Resolved.to_dict(), ...}; each
later one calls a method of the probe: {"call": "measure", "seconds": 0.5}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from holo_cli import plugins
from holo_cli.config.resolve import Resolved
from holo_cli.errors import HoloError

ANSWER_SECONDS = 900.0  # seconds that one answer may take
TAIL = 400  # characters of a dead process's last words

Answer = dict[str, Any]


class ModelProcessError(Exception):
    """A process that could not answer; the message says why, in a line."""


class ModelProcess:
    """A process with one model. Use as a context manager: it ends with the block."""

    def __init__(
        self,
        name: str,
        probe: str,
        resolved: Resolved,
        *,
        timeout: float = ANSWER_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.timeout = name, timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "holo_cli.bench.speed.model_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, encoding="utf-8",
            env={
                **os.environ,
                **plugins.environment(),
                "PYTHONPATH": _import_path(),
                **(environment or {}),
            },
        )  # fmt: skip
        self._send({"probe": probe, "config": resolved.to_dict()})

    def ask(self, call: str, **arguments: Any) -> Answer:
        """Call a method of the probe and wait for what it returns. Raises ModelProcessError."""
        if not self._send({"call": call, **arguments}):
            raise ModelProcessError(self._last_words())
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        watch = threading.Timer(self.timeout, give_up)
        watch.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watch.cancel()
        if late.is_set():
            raise ModelProcessError(f"no answer within {self.timeout:.0f} seconds")
        if not line:
            raise ModelProcessError(self._last_words())
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise ModelProcessError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process, however it is."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with _broken_pipes_ignored():
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()  # nobody waits for its answer any more
        self.close()

    def _send(self, message: Mapping[str, Any]) -> bool:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it died, or was closed after failing
            return False
        return True

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory, most likely)" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", errors="replace").strip()
        last = said.splitlines()[-1][-TAIL:] if said else "it said nothing"
        return f"its process ended with code {code}: {last}"


def in_turn(
    children: Sequence[ModelProcess],
    rounds: int,
    work: Callable[[ModelProcess, int], None],
    failed: Callable[[ModelProcess, str], None],
    between: Callable[[int], None] | None = None,
) -> None:
    """Round after round, `work(child, round)` for each child that has not failed, one at a time.

    The order turns by one each round, so that nobody always follows the same neighbour.
    `between(round)` runs before each round: measurements of the machine itself.
    """
    gone: set[str] = set()
    for number in range(rounds):
        if between is not None:
            between(number)
        start = number % max(1, len(children))
        for child in (*children[start:], *children[:start]):
            if child.name in gone:
                continue
            try:
                work(child, number)
            except ModelProcessError as error:
                gone.add(child.name)
                failed(child, str(error))
                child.close()


def _import_path() -> str:
    """Where this very package lies comes first, whatever the child's working folder holds."""
    here = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))


@contextmanager
def _broken_pipes_ignored() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, OSError):
        return


# -- inside the child -----------------------------------------------------------------------------


def serve(lines: Iterable[str], answer: Callable[[Answer], None]) -> None:
    """Build what the first line says, then call what the others say. An error is the last answer.

    The first answer belongs to the first call: building is part of it.
    """
    asked = iter(lines)
    first = json.loads(next(asked))
    try:
        from holo_cli.bench.speed.step_benchmark import BENCHMARKS

        probe = BENCHMARKS[first["probe"]](Resolved.from_dict(first["config"]))
        for line in asked:
            message = json.loads(line)
            answer(getattr(probe, message.pop("call"))(**message))
    except HoloError as error:
        answer({"error": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever a model's code raises is its row's reason
        answer({"error": _reason(error)})


def _reason(error: Exception) -> str:
    """What went wrong in a line, with the last place in holo that it came through."""
    what = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "holo_cli" in f.filename]
    where = [f for f in ours if Path(f.filename) != Path(__file__)][-1:]
    return what + "".join(f" ({Path(f.filename).name}, line {f.lineno})" for f in where)


def _end_with_parent(parent: int) -> None:
    """End once nobody is left to answer: a parent that was killed closes stdin, but a long
    measurement would go on until it looks there. (Windows keeps the number of a dead parent.)"""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints is no answer
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]

    def answer(value: Answer) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    serve(sys.stdin, answer)


if __name__ == "__main__":
    main()
