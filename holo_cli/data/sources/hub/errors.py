"""Errors of downloads: which are transient, retries with backoff, and the final error messages.

The hub's client retries a single request for about twenty seconds. On top of that, reading is
resumed from the last position after each transient failure (no connection, a broken one, 429, 5xx),
with exponential backoff, until `ATTEMPTS` failures in a row without a new row. Then the preparation
stops with an error; the shards are kept, and the same command resumes it.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable
from typing import TypeVar

from holo_cli.data.network import hub_endpoint
from holo_cli.errors import DataError

ATTEMPTS = 6
FIRST_BACKOFF, MAX_BACKOFF = 1.0, 60.0  # seconds
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

T = TypeVar("T")


def transfer_errors() -> tuple[type[Exception], ...]:
    """What the download libraries raise. Only covers libraries that are imported already."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    kinds: list[type[Exception]] = [OSError, EOFError, zlib.error, HfHubHTTPError, DatasetsError]
    for library, name in (("httpx", "HTTPError"), ("httpx2", "HTTPError")):
        if library in sys.modules:  # which one is used depends on the version of the client
            kinds.append(getattr(sys.modules[library], name))
    if "aiohttp" in sys.modules:
        kinds.append(sys.modules["aiohttp"].ClientError)
    return tuple(kinds)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error or of one of its causes."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        status = getattr(response, "status_code", None) or getattr(seen, "status", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__ or seen.__context__
    return None


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT
    return not isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


def backoff(failures: int) -> float:
    """Seconds to wait after `failures` failures in a row."""
    return float(min(FIRST_BACKOFF * 2 ** (failures - 1), MAX_BACKOFF))


def retry(request: Callable[[], T], what: str) -> T:
    """The result of `request`, retried after transient failures. `what`: named in errors."""
    kinds = transfer_errors()
    for failures in range(1, ATTEMPTS + 1):
        try:
            return request()
        except kinds as error:
            if not is_transient(error):
                raise permanent_error(what, error) from error
            if failures == ATTEMPTS:
                raise retries_exhausted(what, error) from error
            time.sleep(backoff(failures))
    raise AssertionError("unreachable")


def retries_exhausted(what: str, error: BaseException) -> DataError:
    return DataError(
        f"{what} could not be read any further: {reason(error)}.",
        next_step="Run the same command again later: it resumes from here.",
    )


def permanent_error(what: str, error: BaseException) -> DataError:
    """The error for a failure that is not transient."""
    status = status_of(error)
    if status in (401, 403):
        return DataError(
            f"Access to {what} was denied: {hub_endpoint()} responds with status {status}.",
            next_step="Accept its terms on its page if it has any, then log in with "
            "`hf auth login` or set HF_TOKEN.",
        )
    if status == 404 or isinstance(error, FileNotFoundError):
        return DataError(
            f"{what} was not found at {hub_endpoint()}.",
            next_step="Check --lang; a dataset that has moved needs a newer version of holo.",
        )
    return DataError(
        f"{what} could not be read: {reason(error)}.",
        next_step="Use a copy of its files (--source FOLDER), or holo prepare stories.",
    )


def reason(error: BaseException) -> str:
    """The HTTP status of an error, else its first line, else its type."""
    status = status_of(error)
    lines = str(error).strip().splitlines()
    message = lines[0].rstrip(".:") if lines else type(error).__name__
    return f"HTTP status {status}" if status is not None else message
