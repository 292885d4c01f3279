"""The thread that computes: takes rows from the queue, and gives every batch one step in turn.

Between two steps of the active rows at most one new prompt is read, so that a crowd of long prompts
slows the others down and does not stop them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.serve.batch import Batch
from holo_cli.serve.fair_queue import FairQueue
from holo_cli.serve.prefixes import Prefixes
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.rows import BatchRow, GenerationJob

MOST_GUESTS = 8  # calls that may wait for their turn between two steps
T = TypeVar("T")
LONGEST_WAIT = 60  # seconds that Retry-After may say


@dataclass
class Served:
    """A model with its batch; made once for each time it is loaded."""

    loaded: LoadedModel
    batch: Batch
    prefixes: Prefixes

    @classmethod
    def of(cls, loaded: LoadedModel, prefix_bytes: int) -> Served:
        """`prefix_bytes`: the most that kept states may take."""
        prefixes = Prefixes(prefix_bytes)
        return cls(loaded, Batch(loaded, prefixes), prefixes)


class Scheduler:
    """`rows` rows of a model are computed at once, `queue` more wait."""

    def __init__(self, rows: int, queue: int, died: Callable[[], None] = lambda: None) -> None:
        self.rows = rows
        self._queue = FairQueue(queue)
        self._of: dict[int, Served] = {}  # by the job's number, while it has rows
        self._active: list[Served] = []
        self._wake = threading.Condition()
        self.closing = False
        self._died = died
        self._per_row = 0.1  # seconds from one finished row to the next, lately
        self._last = time.monotonic()
        self.finished_rows = 0
        self._computing = threading.Lock()  # held during a step
        self._guests = 0
        self._guests_served = 0
        self.thread = threading.Thread(target=self._run, name="holo-serve", daemon=True)

    def start(self) -> None:
        """Begins to compute."""
        self.thread.start()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return sum(len(served.batch) for served in list(self._active))

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def submit(self, job: GenerationJob, served: Served) -> None:
        """Queues a job's rows. Raises Refusal where they do not fit or the server stops."""
        with self._wake:
            if self.closing:
                raise Refusal(503, "The server is shutting down.", code="shutting_down")
            if len(job.rows) > self._queue.bound:
                raise Refusal(
                    400,
                    f"A request may ask for at most {self._queue.bound} texts, not "
                    f"{len(job.rows)}.",
                    param="n",
                )
            if not self._queue.fits(job):
                raise Refusal(
                    429,
                    f"{len(self._queue)} texts are waiting already. Try again later.",
                    code="queue_full",
                    wait=self.wait_seconds(),
                )
            self._of[job.number] = served
            self._queue.add(job)
            self._wake.notify()

    def wait_seconds(self) -> int:
        """In how many seconds half of the queue should be gone."""
        seconds = len(self._queue) / 2 * self._per_row
        return max(1, min(LONGEST_WAIT, round(seconds)))

    def cancel(self, job: GenerationJob) -> None:
        """A job's rows leave."""
        job.cancel()
        with self._wake:
            self._queue.remove(job)
            self._wake.notify()

    def close(self) -> None:
        """Refuses what waits; running requests finish."""
        with self._wake:
            self.closing = True
            rows = self._queue.clear()
            self._wake.notify()
        for row in rows:
            row.emit(refusal=Refusal(503, "The server is shutting down.", code="shutting_down"))

    def between_steps(self, call: Callable[[], T]) -> T:
        """Calls something with the models while no step is computed; the caller's thread waits.

        Hooks and other changes that the call makes for a while are seen by no step. Raises Refusal
        where too many wait already, and whatever the call raises.
        """
        with self._wake:
            if self._guests >= MOST_GUESTS:
                raise Refusal(429, "Too many requests wait for this.", code="queue_full", wait=2)
            self._guests += 1
        try:
            with self._computing:
                return call()
        finally:
            with self._wake:
                self._guests -= 1
                self._guests_served += 1
                self._wake.notify_all()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._once():
                pass
        finally:
            self._died()

    def _once(self) -> bool:
        """One step of everything; waits if there is nothing to do. False when all is done."""
        with self._wake:
            while not self._queue and not self._active:
                if self.closing:
                    return False
                self._wake.wait()
                self._last = time.monotonic()
            # a lock is not fair: one guest goes first, so that steps cannot keep it waiting
            served_before = self._guests_served
            while self._guests and self._guests_served == served_before:
                self._wake.wait()
        with self._computing:
            self._step()
        return True

    def _step(self) -> None:
        self._admit()
        for served in self._active:
            before = {id(row): row for row in served.batch.rows()}
            served.batch.step()
            left = {id(row) for row in served.batch.rows()}
            self._note_finished(sum(key not in left for key in before))
        self._active = [served for served in self._active if len(served.batch)]

    def _admit(self) -> None:
        """Reads one waiting prompt beside active rows, or as many as fit where there are none."""
        alone = not self._active
        while (found := self._next()) is not None:
            row, served = found
            served.batch.admit(row)
            if len(served.batch) and served not in self._active:
                self._active.append(served)
            if not alone:
                return

    def _next(self) -> tuple[BatchRow, Served] | None:
        with self._wake:
            if not len(self._queue) or self.running >= self.rows:
                return None
            row = self._queue.take()
            return row, self._of[row.job.number]

    def _note_finished(self, count: int) -> None:
        if count:
            now = time.monotonic()
            self.finished_rows += count
            self._per_row += 0.1 * ((now - self._last) / count - self._per_row)
            self._last = now

    def forget(self, job: GenerationJob) -> None:
        """Drops what is remembered of a job that is over."""
        with self._wake:
            self._of.pop(job.number, None)
        # a job and its rows name each other: taken apart, their tensors are freed at once
        job.prompt = None
        job.rows = []
