"""What cleaning computes for each document alone: the rule it breaks, and its fingerprints.

This is nearly all of its work, so `JudgingProcesses` spreads it over processes, a run of
neighbouring documents each, and puts the answers together in order. What depends on the order,
comparing the documents with each other, stays with the caller. A process is `python -m
holo_cli.data.cleaning.worker`; it reads a pickle of documents from its standard input, answers with
a pickle, and ends with its input, so that none survives a caller that is killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import holo_cli
from holo_cli.data.cleaning import fingerprint
from holo_cli.data.cleaning.document_filter import DocumentFilter
from holo_cli.data.cleaning.settings import CleaningSettings
from holo_cli.data.document import Document, Judgement
from holo_cli.errors import DataError

WORKER = (sys.executable, "-m", "holo_cli.data.cleaning.worker")
START_CHARACTERS = 4_000_000  # judged in this process first: starting others takes half a second


@dataclass(frozen=True)
class Judged:
    """Of each document the rule that it breaks, or "". The fingerprints of those that break none,
    in order: exact hashes, and signatures (documents, values), empty where they are not asked for.
    """

    broken: list[str]
    exact: list[bytes]
    near: NDArray[np.uint16]

    def each(self) -> list[Judgement]:
        """One judgement for each document, in order."""
        exact, near = iter(self.exact), iter(self.near)
        found = []
        for rule in self.broken:
            if rule:
                found.append(Judgement(rule))
                continue
            values = next(near, None)
            signature = b"" if values is None else values.astype("<u2").tobytes()
            found.append(Judgement("", next(exact, b""), signature))
        return found


def stored(documents: Sequence[Document]) -> Judged | None:
    """The judgements that the documents carry; None unless all of them do."""
    found = [document.judged for document in documents if document.judged is not None]
    if not found or len(found) < len(documents):
        return None
    passed = [one for one in found if not one.rule]
    near = [np.frombuffer(one.near, dtype="<u2") for one in passed if one.near]
    return Judged(
        [one.rule for one in found],
        [one.exact for one in passed if one.exact],
        np.stack(near).astype(np.uint16) if near else fingerprint.signatures([]),
    )


class Judge:
    """Judges documents in this process."""

    def __init__(self, settings: CleaningSettings) -> None:
        self._settings = settings
        self._filter = DocumentFilter(settings)

    def judge(self, documents: Sequence[Document]) -> Judged:
        broken = self._filter.judge_all(documents)
        texts: list[str] = []
        if self._settings.duplicates:
            left = zip(documents, broken, strict=True)
            texts = [fingerprint.folded(document.text) for document, rule in left if not rule]
        exact = [fingerprint.exact(text) for text in texts]
        return Judged(broken, exact, fingerprint.signatures(texts if self._settings.near else []))

    def close(self) -> None:
        """Nothing to close."""


class JudgingProcesses:
    """The same judgements from several processes, which start once there is enough text."""

    def __init__(self, settings: CleaningSettings, processes: int) -> None:
        self._settings, self._size = settings, processes
        self._own = Judge(settings)
        self._characters = 0
        self._workers: list[subprocess.Popen[bytes]] = []

    def judge(self, documents: Sequence[Document]) -> Judged:
        """DataError if a process ended, or met one; then all of them are ended."""
        if self._characters < START_CHARACTERS:
            self._characters += sum(len(document.text) for document in documents)
            return self._own.judge(documents)
        try:
            if not self._workers:
                self._start()
            parts = list(_parts(documents, self._size))
            asked = list(zip(self._workers, parts, strict=False))
            for worker, part in asked:
                send(worker, [(one.text, one.language, one.score) for one in part])
            answers = [receive(worker) for worker, _ in asked]
        except BaseException:
            self.close()  # Ctrl-C too: answers that are under way would be taken for the next ones
            raise
        near = [answer.near for answer in answers if len(answer.near)]
        return Judged(
            [rule for answer in answers for rule in answer.broken],
            [value for answer in answers for value in answer.exact],
            np.concatenate(near) if near else fingerprint.signatures([]),
        )

    def close(self) -> None:
        """End all processes at once; they hold nothing to save."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # unsent data of a broken pipe
                    pipe.close()
        self._workers = []

    def _start(self) -> None:
        for _ in range(self._size):
            self._workers.append(
                subprocess.Popen(
                    WORKER,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=_environment(),
                    # Ctrl-C in the terminal goes to this process, which ends the others
                    process_group=None if sys.platform == "win32" else 0,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            )
        for worker in self._workers:
            send(worker, self._settings)


def send(worker: subprocess.Popen[bytes], message: Any) -> None:
    assert worker.stdin is not None
    try:
        pickle.dump(message, worker.stdin, pickle.HIGHEST_PROTOCOL)
        worker.stdin.flush()
    except OSError as error:
        raise _ended(worker) from error


def receive(worker: subprocess.Popen[bytes]) -> Judged:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise _ended(worker) from error
    if isinstance(answer, Judged):
        return answer
    message, next_step = answer
    raise DataError(message, next_step=next_step)


def _ended(worker: subprocess.Popen[bytes]) -> DataError:
    try:
        code = worker.wait(timeout=5)
    except subprocess.TimeoutExpired:
        worker.kill()
        code = worker.wait()
    return DataError(
        f"A process that cleans text ended unexpectedly, with exit code {code}.",
        next_step="Run the same command again to resume; --processes 1 needs the least memory.",
    )


def _parts(documents: Sequence[Document], count: int) -> Iterator[Sequence[Document]]:
    """At most `count` runs of neighbouring documents with about equally many characters."""
    sizes = [len(document.text) + 1 for document in documents]
    total = sum(sizes)
    begin = size = done = 0
    for number, more in enumerate(sizes, start=1):
        size += more
        if size * count >= total * (done + 1):
            yield documents[begin:number]
            begin, done = number, size * count // total


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # import the tree that this process runs from, whether it is installed or not
    tree = str(Path(holo_cli.__file__).resolve().parents[1])
    paths = [tree, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment
