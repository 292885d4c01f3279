"""Figures of a server in the text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from holo_cli.serve.batch import Counts
from holo_cli.serve.model_pool import ModelPool
from holo_cli.serve.scheduler import Scheduler

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HELP = {
    "prompt_tokens": "Tokens of prompts.",
    "cached_tokens": "Tokens of prompts that were not read again.",
    "new_tokens": "Tokens drawn.",
    "steps": "Steps of a batch.",
    "rows_read": "Rows computed, summed over passes.",
    "passes": "Passes through a model.",
    "near_ties": "Greedy choices between nearly equal tokens, computed again alone.",
}


@dataclass
class Metrics:
    """Requests by path and status, and time; all else is read where it is."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    disconnected: int = 0
    started: float = field(default_factory=time.time)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Notes an answered request."""
        self.requests[path, status] += 1
        self.seconds[path] += seconds  # type: ignore[assignment]

    def text(self, scheduler: Scheduler, pool: ModelPool) -> str:
        """The page."""
        return "\n".join(self._lines(scheduler, pool)) + "\n"

    def _lines(self, scheduler: Scheduler, pool: ModelPool) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests answered.")
        for (path, status), count in sorted(self.requests.items()):
            yield f'holo_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("request_seconds_total", "counter", "Time from request to last byte.")
        for path, seconds in sorted(self.seconds.items()):
            yield f'holo_request_seconds_total{{path="{path}"}} {seconds:.6f}'
        single = [
            ("disconnected_total", "counter", "Clients that left early.", self.disconnected),
            ("rows_waiting", "gauge", "Texts in the queue.", scheduler.waiting),
            ("rows_running", "gauge", "Texts being written.", scheduler.running),
            ("rows_finished_total", "counter", "Texts written.", scheduler.finished_rows),
            ("model_bytes", "gauge", "Weights of loaded models.", pool.used_bytes),
            ("model_loads_total", "counter", "Models loaded.", pool.loads),
            ("start_time_seconds", "gauge", "When the server started.", round(self.started)),
        ]
        for name, kind, about, value in single:
            yield from _head(name, kind, about)
            yield f"holo_{name} {value}"
        loaded = {n: e.served for n, e in pool.entries.items() if e.served is not None}
        for counted in fields(Counts):
            yield from _head(f"{counted.name}_total", "counter", HELP[counted.name])
            for name, served in loaded.items():
                value = getattr(served.batch.counts, counted.name)
                yield f'holo_{counted.name}_total{{model="{_escaped(name)}"}} {value}'
        yield from _head("prefix_bytes", "gauge", "States kept for longer prompts.")
        for name, served in loaded.items():
            yield f'holo_prefix_bytes{{model="{_escaped(name)}"}} {served.prefixes.bytes}'


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP holo_{name} {about}"
    yield f"# TYPE holo_{name} {kind}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
