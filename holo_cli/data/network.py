"""One quick question before anything is fetched: does the other side answer at all?

Libraries that download retry for tens of seconds without a network. A name that cannot be
resolved may hang in the system's resolver, where no timeout applies, so the question is asked in
a thread that is left behind when it takes too long.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

HUB = "https://huggingface.co"


def hub_endpoint() -> str:
    """The address of the Hugging Face hub; `HF_ENDPOINT` names a mirror."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def hub_offline() -> bool:
    """Whether the environment forbids using the hub."""
    truthy = {"1", "ON", "YES", "TRUE"}
    variables = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(v, "").upper() in truthy for v in variables)


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether `url` answers anything at all within `seconds`; proxies of the environment apply."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()  # a refusal is an answer: there is a network
        except (OSError, ValueError):
            return  # no route, no name, no certificate, or not an address

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
