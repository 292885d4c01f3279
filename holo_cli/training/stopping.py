"""A request to stop, from Ctrl-C, SIGTERM, a closed terminal or a caller, carried out at the next
safe moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal was closed. SIGBREAK: Ctrl-Break in a Windows console.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]

_ALWAYS = {signal.SIGINT, signal.SIGTERM}


class StopRequest:
    """Set once by a signal (or by code); the loop looks at it between forward passes."""

    def __init__(self) -> None:
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.reason)

    def ask(self, reason: str) -> None:
        self.reason = self.reason or reason

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """While inside, the first of the signals requests a stop; a second SIGINT interrupts.

        Under `nohup`, which ignores SIGHUP, a closed terminal requests nothing. Handlers can only
        be set in the main thread; elsewhere this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self:
                raise KeyboardInterrupt
            self.ask("signal")

        numbers = [n for n in _SIGNALS if n in _ALWAYS or signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
