"""What can go wrong with a transfer, what passes by itself, and how long to wait for it.

The hub's client retries a single request by itself, for about twenty seconds. Around that lies
this: after each failure that may pass (no connection, a cut one, 429, 5xx) a pause that doubles,
and then on from the last position, until `ATTEMPTS` failures in a row without a single new row.
Then the preparation ends with one sentence; what was packed is kept, and the same command goes on.
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
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

T = TypeVar("T")


def transfer_errors() -> tuple[type[Exception], ...]:
    """Everything that the libraries for transfers raise. Import them before asking."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    kinds: list[type[Exception]] = [OSError, EOFError, zlib.error, HfHubHTTPError, DatasetsError]
    for library, name in (("httpx", "HTTPError"), ("httpx2", "HTTPError")):
        if library in sys.modules:  # which of them there is depends on the client's version
            kinds.append(getattr(sys.modules[library], name))
    if "aiohttp" in sys.modules:
        kinds.append(sys.modules["aiohttp"].ClientError)
    return tuple(kinds)


def status_of(error: BaseException) -> int | None:
    """The status of the answer that an error is about, anywhere along its causes."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        status = getattr(response, "status_code", None) or getattr(seen, "status", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__ or seen.__context__
    return None


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help."""
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT
    return not isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))


def retry(ask: Callable[[], T], what: str) -> T:
    """The answer of `ask`, tried again while its failures may pass."""
    kinds = transfer_errors()
    for failures in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except kinds as error:
            if not is_transient(error):
                raise permanent_error(what, "", error) from error
            if failures == ATTEMPTS:
                raise retries_exhausted(what, error) from error
            time.sleep(backoff(failures))
    raise AssertionError("unreachable")


def retries_exhausted(what: str, error: BaseException) -> DataError:
    """After the last attempt."""
    return DataError(
        f"{what} could not be read any further: {reason(error)}.",
        next_step="Give the same command again later: it goes on from here.",
    )


def permanent_error(what: str, code: str, error: BaseException) -> DataError:
    """An answer that will not change by itself."""
    status = status_of(error)
    if status in (401, 403):
        return DataError(
            f"{what} may not be read: {hub_endpoint()} answers {status}.",
            next_step="If it asks for consent, give it on its page there; then log in with "
            "`hf auth login`, or set HF_TOKEN.",
        )
    if status == 404 or isinstance(error, FileNotFoundError):
        which = f" for '{code}'" if code else ""
        return DataError(
            f"{what} has no such files{which} at {hub_endpoint()}.",
            next_step="Check --lang; a dataset that has moved needs a newer holo.",
        )
    return DataError(
        f"{what} could not be read: {reason(error)}.",
        next_step="Use a copy of its files (--source FOLDER), or holo prepare stories.",
    )


def reason(error: BaseException) -> str:
    """The first line of an error, or what kind it is."""
    status = status_of(error)
    lines = str(error).strip().splitlines()
    told = lines[0].rstrip(".:") if lines else type(error).__name__
    return f"the answer was {status}" if status is not None else told
