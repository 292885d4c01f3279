"""Fingerprints of the code that makes and trains a model, stored in every row.

A worker computes them when it starts, before a file can change during a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import holo_cli
from holo_cli import registry

ROOT = Path(holo_cli.__file__).parent
LAYERS = ("cache", "causal", "conv", "cross_entropy", "device", "embedding", "head", "mlp", "norm",
          "interfaces", "rope")  # fmt: skip
# what every model's run goes through: batches and their order, the trainer, the backbone's layers
SHARED = (*(f"layers/{name}.py" for name in LAYERS), "training",
          *(f"models/{name}.py" for name in ("__init__", "backbone", "base", "views")),
          "config", "data/batches.py", "data/dataset.py", "data/windows.py",
          "experiment/worker.py")  # fmt: skip
# what a run of `holo bench recall` goes through as well: its rows and their scoring
RECALL = ("tasks",)


def shared_fingerprint() -> str:
    """Of the code that all models share: rows should agree in it to be compared."""
    return _digest(file for pattern in SHARED for file in _files(pattern))


def code_fingerprint(model: str, task: str = "train") -> str:
    """Of a model's own folder, all layers, and the shared code; for the worker's task "recall" also
    of the synthetic tasks and of the code that trains and tests on them."""
    patterns = ("layers", *SHARED, *(RECALL if task == "recall" else ()))
    return _digest([*registry.code_files(model), *(f for p in patterns for f in _files(p))])


def _files(pattern: str) -> Iterable[Path]:
    folder = ROOT / pattern
    found = list(folder.rglob("*.py") if folder.is_dir() else ROOT.glob(pattern))
    assert found, pattern  # a renamed file must not drop out of the fingerprint silently
    return found


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        inside = path.is_relative_to(ROOT)
        digest.update((path.relative_to(ROOT).as_posix() if inside else path.name).encode("utf-8"))
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
