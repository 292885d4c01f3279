"""Measures the activations of one row of every preset and writes holo_cli/training/row_memory.json.

    python -m benchmarks.row_memory                      # all presets, some minutes
    python -m benchmarks.row_memory --models ngt,vanilla # the others keep their figures

Run it after a change of what a model keeps for its backward pass; tests/training/test_row_memory.py
fails when a figure of a small preset is out of date.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from holo_cli import registry
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.config.resolve import resolve
from holo_cli.files import atomic_write_text
from holo_cli.training.memory_estimate import activation_bytes
from holo_cli.training.row_memory import TABLE, row_key, stored_figures

DTYPES = (torch.float32, torch.bfloat16)


def measured(name: str, preset: str) -> dict[str, int]:
    """Bytes of a row of one preset by key, in both formats."""
    resolved = resolve(name, preset, flags={"model.vocab_size": 1024}, env={})
    config, checkpointed = resolved.model, resolved.training.grad_checkpoint
    full = shapes_only(name, config)
    cpu = torch.device("cpu")
    return {
        row_key(name, config, dtype, checkpointed): activation_bytes(
            name, config, full, cpu, dtype, checkpointed=checkpointed
        )
        for dtype in DTYPES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", help="names, apart by commas (default: all)")
    names = parser.parse_args().models
    chosen = names.split(",") if names else registry.built_in()
    if len(chosen) > 1:  # each in a process of its own: the largest presets take gigabytes
        for name in chosen:
            command = [sys.executable, "-m", "benchmarks.row_memory", "--models", name]
            subprocess.run(command, check=True)
        return
    (name,) = chosen
    stored = stored_figures() if TABLE.exists() else {}
    found = {key: value for key, value in stored.items() if not key.startswith(f"{name}/")}
    for preset in registry.preset_names(name):
        rows = measured(name, preset)
        found |= rows
        print(name, preset, *rows.values(), flush=True)
    content = {"torch": torch.__version__, "bytes": dict(sorted(found.items()))}
    atomic_write_text(TABLE, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
