"""A quick check that a server is reachable, before anything is downloaded.

Download libraries retry for tens of seconds without a network. Name resolution may block in the
system's resolver, where no timeout applies, so the request runs in a daemon thread that is
abandoned when the time is up.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

HUB = "https://huggingface.co"


def hub_endpoint() -> str:
    """The URL of the Hugging Face hub; `HF_ENDPOINT` sets a mirror."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def hub_offline() -> bool:
    """Whether the environment switches the hub to offline mode."""
    truthy = {"1", "ON", "YES", "TRUE"}
    variables = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(v, "").upper() in truthy for v in variables)


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether `url` responds within `seconds`; the environment's proxies apply."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()  # an HTTP error is a response: the server is reachable
        except (OSError, ValueError):
            return  # no route, no name, no certificate, or not an address

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
