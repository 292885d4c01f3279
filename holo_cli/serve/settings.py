"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEGABYTE = 10**6


@dataclass(frozen=True)
class ServeSettings:
    """`rows` texts of a model are written at once and `queue` more wait. `max_tokens` is the most
    that a request may ask for. `budget` bytes of weights (None: any), `prefix_bytes` of kept states
    for each model, `max_body` of a request. `grace`: seconds that running requests have after a
    signal to stop."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str = ""
    rows: int = 32
    queue: int = 256
    max_tokens: int = 4096
    budget: int | None = None
    prefix_bytes: int = 256 * MEGABYTE
    max_body: int = 4 * MEGABYTE
    grace: int = 30
