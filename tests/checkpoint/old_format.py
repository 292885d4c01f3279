"""Turns a checkpoint into the file that an older holo would have written of it."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holo_cli.checkpoint import load_training, save
from holo_cli.checkpoint.renames import RENAMED_SINCE_1


def rewrite_as_format_1(path: Path) -> None:
    """Replace a checkpoint by one of format 1: the same tensors under their names of then."""
    header, tensors = load_training(path)

    def old(name: str) -> str:
        for before, now in RENAMED_SINCE_1.get(header.model, {}).items():
            name = re.sub(rf"(?<![^./]){re.escape(now)}(?![^./])", before, name)
        return name.removesuffix("/momentum_buffer")

    renamed = {old(name): tensor for name, tensor in tensors.items()}
    save(path, header.model_copy(update={"format": 1}), renamed)
    rewrite_head(path, lambda entries, header: None)


def rewrite_head(
    path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object], digests: bool = False
) -> Path:
    """The file with its entries and its holo header changed, the tensors' bytes as they were.

    Without `digests` it is a file from before there were any, or of a stranger who left them out;
    with them those of the tensors stay and that of the header is made anew, as by a forger.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    header = json.loads(entries["__metadata__"]["holo"])
    if not digests:
        header.pop("digests", None)
        entries["__metadata__"].pop("holo_crc32", None)
    change(entries, header)
    if "holo" in entries.get("__metadata__", {}):
        text = json.dumps(header)
        entries["__metadata__"]["holo"] = text
        if digests:
            entries["__metadata__"]["holo_crc32"] = f"{zlib.crc32(text.encode()):08x}"
    head = json.dumps(entries).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[start:])
    return path
