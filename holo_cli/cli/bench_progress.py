"""Shows how far the runs of a bench are that are under way, perhaps several side by side."""

from __future__ import annotations

import time
from typing import Any

from holo_cli.cli.output import Output

LINE_EVERY = 30.0  # seconds between lines about runs under way


class Watch:
    """Call with the name of a run and each of its events."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self._line_at = time.monotonic()

    def __call__(self, run: str, event: dict[str, Any]) -> None:
        if event["event"] == "warning":
            self.out.note(f"{run}: {event['message']}")
        elif event["event"] == "train" and time.monotonic() - self._line_at >= LINE_EVERY:
            self._line_at = time.monotonic()
            self.out.note(
                f"  {run}: step {event['step']}/{event['steps']}, loss {event['loss']:.4f}"
            )
