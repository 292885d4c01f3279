"""Checkpoints: one safetensors file in, one out; atomic; a model rebuilt from its header alone.

    header.py   what a checkpoint says about itself (format version 1)
    container.py  the safetensors container;  digest.py: digests of its tensors
    read.py     header and tensors from one open file
    write.py    saving, atomically, shared tensors once
    rebuild.py  header + tensors -> model and tokenizer
    find.py     run names -> paths;  lock.py: one writer per run;  summary.py: `holo inspect`

No pickle anywhere. Names that need torch are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from holo_cli.checkpoint.find import (
    find_checkpoint,
    is_exported,
    known_runs,
    run_path,
    split_run,
)
from holo_cli.errors import CheckpointError

if TYPE_CHECKING:
    from holo_cli.checkpoint.header import (
        FORMAT_VERSION,
        DataInfo,
        Header,
        Kind,
        Losses,
        Origin,
    )
    from holo_cli.checkpoint.lock import RunLock
    from holo_cli.checkpoint.read import TensorFile, read_header
    from holo_cli.checkpoint.rebuild import load_model, load_training
    from holo_cli.checkpoint.summary import inspect_checkpoint
    from holo_cli.checkpoint.write import model_tensors, save

_LATER = {
    "FORMAT_VERSION": "header",
    "DataInfo": "header",
    "Header": "header",
    "Origin": "header",
    "Kind": "header",
    "Losses": "header",
    "RunLock": "lock",
    "TensorFile": "read",
    "inspect_checkpoint": "summary",
    "load_model": "rebuild",
    "load_training": "rebuild",
    "model_tensors": "write",
    "read_header": "read",
    "save": "write",
}

__all__ = [
    "FORMAT_VERSION",
    "CheckpointError",
    "DataInfo",
    "Header",
    "Kind",
    "Losses",
    "Origin",
    "RunLock",
    "TensorFile",
    "find_checkpoint",
    "inspect_checkpoint",
    "is_exported",
    "known_runs",
    "load_model",
    "load_training",
    "model_tensors",
    "read_header",
    "run_path",
    "save",
    "split_run",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
