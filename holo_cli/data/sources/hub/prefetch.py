"""Prefetching: the next chunks are read while the current one is processed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items in the same order, at most `depth` of them prefetched by a thread.

    An error of `items` is raised in place of the item. The thread ends with the items, or soon
    after this iterator is closed.
    """
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            put("error", error)
            return
        put("end", None)

    threading.Thread(target=work, name="holo-prefetch", daemon=True).start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        closed.set()
