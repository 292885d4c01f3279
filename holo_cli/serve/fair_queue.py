"""Rows that wait: clients take turns, and so do the requests of one client."""

from __future__ import annotations

from collections import OrderedDict, deque

from holo_cli.serve.rows import BatchRow, GenerationJob


class FairQueue:
    """At most `bound` waiting rows. Not safe for threads; the scheduler holds its lock."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._clients: OrderedDict[str, OrderedDict[int, deque[BatchRow]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def fits(self, job: GenerationJob) -> bool:
        """Whether there is room for all rows of a job."""
        return self._length + len(job.rows) <= self.bound

    def add(self, job: GenerationJob) -> None:
        """Appends a job's rows, for which there must be room."""
        jobs = self._clients.setdefault(job.client, OrderedDict())
        jobs[job.number] = deque(job.rows)
        self._length += len(job.rows)

    def take(self) -> BatchRow:
        """The next row: of the client, and of that client's job, whose last turn is longest ago."""
        client, jobs = self._clients.popitem(last=False)
        number, rows = jobs.popitem(last=False)
        row = rows.popleft()
        self._length -= 1
        if rows:
            jobs[number] = rows
        if jobs:
            self._clients[client] = jobs
        return row

    def remove(self, job: GenerationJob) -> None:
        """Removes the waiting rows of a job."""
        jobs = self._clients.get(job.client)
        if jobs is None or (rows := jobs.pop(job.number, None)) is None:
            return
        self._length -= len(rows)
        if not jobs:
            del self._clients[job.client]

    def clear(self) -> list[BatchRow]:
        """Removes all rows and returns them."""
        found = []
        while self._length:
            found.append(self.take())
        return found
