"""What the digests of a checkpoint cost when it is saved and loaded.

    python -m benchmarks.digests --mb 500

Saves and reads a file of random weights of that size in a temporary folder and prints, as one JSON
object, the seconds of each (the best of three) and of the digests alone. The file is in the page
cache when it is read, so the shares are the largest that they can be.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from holo_cli.checkpoint import Header, TensorFile, save
from holo_cli.checkpoint.digest import digest, verify
from holo_cli.checkpoint.tensor_bytes import not_finite, raw_bytes
from holo_cli.experiment.machine import machine_line

TENSORS = 24
ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """The shortest of several times."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return round(best, 4)


def read(path: Path) -> None:
    with TensorFile(path) as file:
        file.read_all()


def measure(megabytes: int, folder: Path) -> dict[str, object]:
    """The seconds of each step for a file of that size."""
    size = megabytes * 250_000 // TENSORS
    tensors = {f"model/{i}": torch.randn(size) for i in range(TENSORS)}
    header = Header(model="vanilla", config={"model": {}}, tokenizer={})
    path = folder / "a.safetensors"
    return {
        "megabytes": megabytes,
        "save": seconds(lambda: save(path, header, tensors)),
        "read": seconds(lambda: read(path)),
        "digests": seconds(
            lambda: [digest("F32", t.shape, raw_bytes(t)) for t in tensors.values()]
        ),
        "looking for NaN": seconds(lambda: [not_finite(t) for t in tensors.values()]),
        "inspect": seconds(lambda: verify(path)),
        "machine": machine_line(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(asked.mb, Path(folder)), ensure_ascii=False))


if __name__ == "__main__":
    main()
