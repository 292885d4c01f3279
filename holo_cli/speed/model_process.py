"""A worker process that holds one model and measures it when asked.

A process of its own gives each model its own peak memory, and the parent can measure all models in
turn, round after round, while they stay warm. A failure, up to being killed, ends one model's
process only: its row has the reason and the others continue.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from holo_cli.config.resolve import Resolved
from holo_cli.errors import HoloError
from holo_cli.experiment import worker
from holo_cli.experiment.worker_pool import FAILED, Event, WorkerProcess
from holo_cli.imports import no_collections, quick_exit
from holo_cli.parsing import parse_object

PROCESS = (sys.executable, "-m", "holo_cli.speed.model_process")
ANSWER_SECONDS = 900.0  # time limit of one call

Reply = dict[str, Any]
T = TypeVar("T")


class ModelProcessError(Exception):
    """A model process failed; the message is the reason, in one line."""


class ModelProcess:
    """A process with one model. Use as a context manager: it ends with the block.

    `benchmark` is a key of `step_benchmark.BENCHMARKS`.
    """

    def __init__(
        self, name: str, benchmark: str, resolved: Resolved, *, timeout: float = ANSWER_SECONDS
    ) -> None:
        self.name, self.timeout = name, timeout
        self._worker = WorkerProcess(
            {"benchmark": benchmark, "resolved": resolved.to_dict()}, command=PROCESS
        )

    @property
    def pid(self) -> int:
        return self._worker.process.pid

    def ask(self, call: str, **arguments: Any) -> Reply:
        """Call a method of the benchmark and wait for its result. Raises ModelProcessError."""
        self._worker.send({"call": call, **arguments})
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._worker.process.kill()

        timer = threading.Timer(self.timeout, give_up)
        timer.start()
        try:
            event = self._worker.next_event()
        finally:
            timer.cancel()
        if timed_out.is_set():
            raise ModelProcessError(f"no answer within {self.timeout:.0f} seconds")
        event = event or self._worker.crash()
        if event.pop("event") == FAILED:
            raise ModelProcessError(event["error"])
        return event

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._worker.process.kill()  # nothing reads its answer any more
        self._worker.close()


def run_rounds(
    processes: Sequence[ModelProcess],
    rounds: int,
    measure: Callable[[ModelProcess, int], None],
    on_failure: Callable[[str, str], None],
    before_round: Callable[[int], None] | None = None,
) -> None:
    """Round after round, `measure(process, round)` for each process that has not failed, one at a
    time.

    The order rotates by one each round, so that no model always follows the same other one.
    `before_round(round)` may measure the machine itself. `on_failure` gets a name and a reason.
    """
    failed: set[str] = set()
    for number in range(rounds):
        if before_round is not None:
            before_round(number)
        for process in rotated(processes, number):
            if process.name in failed:
                continue
            try:
                measure(process, number)
            except ModelProcessError as error:
                failed.add(process.name)
                on_failure(process.name, str(error))
                process.close()


def rotated(items: Sequence[T], number: int) -> list[T]:
    """The items in an order that begins `number` places later."""
    start = number % max(1, len(items))
    return [*items[start:], *items[:start]]


# -- inside the process ---------------------------------------------------------------------------


def serve(job: Mapping[str, Any], lines: Iterable[str], emit: Callable[[Event], None]) -> None:
    """Build a benchmark and call the methods that the lines name. An error is the last answer.

    The first answer belongs to the first call: building is part of it.
    """
    try:
        with no_collections():
            from holo_cli.speed.step_benchmark import BENCHMARKS

        benchmark = BENCHMARKS[job["benchmark"]](Resolved.from_dict(job["resolved"]))
        for line in lines:
            message = parse_object(line)
            emit({"event": "answer", **getattr(benchmark, message.pop("call"))(**message)})
    except HoloError as error:
        emit({"event": FAILED, "error": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever a model's code raises is its row's reason
        emit({"event": FAILED, "error": _reason(error)})


def _reason(error: Exception) -> str:
    """The error in one line, with the last place in holo that it came through."""
    what = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "holo_cli" in f.filename]
    where = [f for f in frames if Path(f.filename) != Path(__file__)][-1:]
    return what + "".join(f" ({Path(f.filename).name}, line {f.lineno})" for f in where)


def exit_with_parent() -> None:
    """Exit when the parent process is gone: stdin closes then, but a long measurement would
    continue until it reads there. (Windows keeps the id of a dead parent, so this has no effect
    there.)"""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """The first line of stdin is the job, each further one a call."""
    quick_exit()
    worker.keep_stdout()
    exit_with_parent()
    serve(parse_object(sys.stdin.readline()), sys.stdin, worker.emit)


if __name__ == "__main__":
    main()
