"""A corpus to prepare, and the content of a prepared folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from holo_cli.data.dataset import PreparedData


def corpus(count: int = 120) -> str:
    english = "The keeper lit lamp number {0} and {0} boats came home. "
    korean = "등대지기가 {0}번 등불을 켜자 배 {0}척이 돌아왔다. "
    return "\n\n\n".join((english, korean)[i % 2].format(i) * 5 for i in range(count))


def content(folder: Path) -> dict[str, str]:
    """Hashes of all files but meta.json, which contains times."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.name not in ("meta.json", ".lock")
    }


def texts(data: PreparedData, split: str) -> list[str]:
    found = []
    for tokens, ends in zip(data.split(split), data.document_ends(split), strict=True):
        starts = [0, *ends[:-1]]
        for start, end in zip(starts, ends, strict=True):
            ids = tokens[int(start) : int(end)].tolist()
            assert ids[-1] == data.tokenizer.end
            found.append(data.tokenizer.decode(ids))
    return found
