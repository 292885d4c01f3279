"""A local stand-in for the hub for the tests of data, with short backoff."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from holo_cli.data.sources.hub import errors
from tests.data.prepared import corpus
from tests.data.sources.hub_server import Hub, serving


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Alternating English and Korean documents, in a file with a space and Hangul in its name."""
    path = tmp_path / "나의 글.txt"
    path.write_text(corpus(), encoding="utf-8")
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The real client libraries with this hub and a cache for the test."""
    import datasets
    import huggingface_hub.constants as constants
    import huggingface_hub.utils._http as client

    with serving() as hub:
        for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        # both are read when the libraries are imported, which may have been in another test
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
        cache = tmp_path / "hub cache"
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        at_once = types.SimpleNamespace(sleep=lambda seconds: None)
        monkeypatch.setattr(client, "time", at_once)  # its pauses between attempts
        monkeypatch.setattr(errors, "FIRST_BACKOFF", 0.001)
        monkeypatch.setattr(errors, "MAX_BACKOFF", 0.01)
        yield hub
