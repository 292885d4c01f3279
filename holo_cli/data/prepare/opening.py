"""Opens the sources of a preparation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holo_cli.data.prepare.options import PrepareOptions
from holo_cli.data.sources import licence_of, open_source


def open_sources(options: PrepareOptions, progress: Mapping[str, Any]) -> None:
    """Open the sources; those of the hub at the revision of the interrupted preparation."""
    pinned: dict[str, str] = {}
    for identity in progress.get("settings", {}).get("identity", []):
        pinned.update(identity.get("revisions", {}))
    options.requests = [replace(request, pinned=pinned) for request in options.requests]
    for request in options.requests:
        if not request.one_of_several and (licence := licence_of(request.name)):
            request.notice(f"Licence of {request.name}: {licence}.")
    options.sources = [open_source(request) for request in options.requests]
