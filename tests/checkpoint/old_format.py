"""Turns a checkpoint into the file that an older holo would have written of it."""

from __future__ import annotations

import re
from pathlib import Path

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
