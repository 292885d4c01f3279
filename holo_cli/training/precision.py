"""Which number format training computes in, found by asking the machine."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from functools import cache

import torch

from holo_cli.errors import UsageError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU; a device that is not there is refused."""
    if name == "auto":
        if torch.cuda.is_available():
            return pick_device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.split(":")[0]
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(kind, False):
        what = "is not available here" if kind in available else "is no device that holo knows"
        usable = ", ".join(k for k, there in available.items() if there)
        raise UsageError(f"Device '{name}' {what}.", next_step=f"Use --device auto or: {usable}.")
    if name == "cuda":  # torchrun gives each process of a machine a GPU of its own
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


@cache
def cpu_is_fast_at_bfloat16() -> bool:
    """Whether a bfloat16 product beats float32 here: a probe of some 20 ms, once per process.

    CPUs without native bfloat16 emulate it, many times slower than float32.
    """
    a, b = torch.randn(512, 256), torch.randn(256, 512)
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, y = a.to(dtype), b.to(dtype)
        x @ y
        times = []
        for _ in range(7):
            start = time.perf_counter()
            x @ y
            times.append(time.perf_counter() - start)
        best[dtype] = min(times)
    return best[torch.bfloat16] < 0.8 * best[torch.float32]


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: as named, or bfloat16 where `auto` finds it fast."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = device.type == "cpu" and cpu_is_fast_at_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Products in `dtype`; a no-op for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
