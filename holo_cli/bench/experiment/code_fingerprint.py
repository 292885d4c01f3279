"""Short names for the code that makes and trains a model, so that rows tell what made them.

A worker takes them when it begins, before a file can change under a run.
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
# What every model's run goes through: batches and their order, the loop, the backbone's layers.
SHARED = (*(f"layers/{name}.py" for name in LAYERS), "training",
          *(f"models/{name}.py" for name in ("__init__", "backbone", "base", "views")),
          "config", "data/batches.py", "data/dataset.py", "data/windows.py",
          "bench/experiment/worker.py")  # fmt: skip
# What a run of `holo bench recall` goes through beside that: its rows and how they are scored.
RECALL = ("bench/tasks", "bench/recall/train.py", "bench/recall/compressor.py")


def shared_code() -> str:
    """Of what all models share: rows that are held against each other should agree in it."""
    return _digest(file for pattern in SHARED for file in _files(pattern))


def code_of(model: str, job: str = "train") -> str:
    """Of a model's own folder, all layers, and of what all share; for a job "recall" also of the
    tasks and of what trains and tests on them."""
    patterns = ("layers", *SHARED, *(RECALL if job == "recall" else ()))
    return _digest([*registry.code_files(model), *(f for p in patterns for f in _files(p))])


def _files(pattern: str) -> Iterable[Path]:
    folder = ROOT / pattern
    return folder.rglob("*.py") if folder.is_dir() else ROOT.glob(pattern)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        inside = path.is_relative_to(ROOT)
        digest.update((path.relative_to(ROOT).as_posix() if inside else path.name).encode("utf-8"))
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
