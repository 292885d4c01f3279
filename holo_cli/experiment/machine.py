"""The machine of a measurement, which is stored beside every figure."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from holo_cli.checkpoint.header import library_versions
from holo_cli.hardware import cpu_name

MACHINE_KEYS = (
    "cpu", "cores", "threads", "gflops_float32", "gflops_bfloat16", "system", "date",
)  # fmt: skip


def product_rate(dtype: torch.dtype, size: int = 1024, seconds: float = 0.5) -> float:
    """GFLOP/s of square matrix products on the CPU: the best product within `seconds`.

    They are of `size` rows; of fewer, down to an eighth, where the machine multiplies this dtype so
    slowly that `seconds` would not hold some products of that size.
    """
    rows = max(1, size // 8)
    best = float("inf")
    end = time.perf_counter() + seconds
    a, b = _square(rows, dtype), _square(rows, dtype)
    while best == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
        if rows < size and 8 * best < seconds / 4:
            rows, best = min(2 * rows, size), float("inf")
            a, b = _square(rows, dtype), _square(rows, dtype)
    return 2 * rows**3 / best / 1e9


def _square(rows: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(rows, rows).to(dtype)


def describe_machine() -> dict[str, Any]:
    """CPU, cores, threads, measured product rates, system, versions, and the time (UTC)."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gflops_float32": round(product_rate(torch.float32)),
        "gflops_bfloat16": round(product_rate(torch.bfloat16)),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": library_versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine_line(machine: Mapping[str, Any] | None = None) -> str:
    """A machine as one sentence; None: this machine, measured now."""
    machine = machine or describe_machine()
    known = {key: machine.get(key) or "unknown" for key in MACHINE_KEYS}  # rows may lack some
    versions = ", ".join(f"{name} {v}" for name, v in (machine.get("versions") or {}).items())
    threads = f"{known['threads']} thread" + ("" if known["threads"] == 1 else "s")
    return (
        f"Machine: {known['cpu']}, {known['cores']} cores, {threads}; "
        f"products at {known['gflops_float32']} GFLOP/s (float32) and "
        f"{known['gflops_bfloat16']} (bfloat16); {known['system']}; {versions}; "
        f"{known['date']}."
    )
