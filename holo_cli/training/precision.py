"""Which number format training computes in, found by asking the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache

import torch

from holo_cli.errors import UsageError
from holo_cli.hardware import cpu_fingerprint, remember, remembered


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
    """Whether bfloat16 products beat float32 here. CPUs without native bfloat16 emulate it, many
    times slower.

    Measured once per machine and version of torch, and remembered: a comparison in which two runs
    decided for themselves would compare number formats.
    """
    name = f"bfloat16_over_float32/{cpu_fingerprint()}/{torch.__version__}"
    ratio = remembered(name)
    if not isinstance(ratio, int | float):
        ratio = round(bfloat16_over_float32(), 3)
        remember(name, ratio)
    return ratio < 0.8


def bfloat16_over_float32(rounds: int = 25, size: int = 384) -> float:
    """Time of a bfloat16 product over that of a float32 one: the least of each over all rounds.

    The formats take turns and a round lasts a millisecond, so that other work on the machine meets
    both alike and cannot meet all rounds of one. Five rounds are enough where bfloat16 is emulated:
    there one lasts a tenth of a second.
    """
    a, b = torch.randn(size, size), torch.randn(size, size)
    pairs = {dtype: (a.to(dtype), b.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    least = dict.fromkeys(pairs, float("inf"))
    for number in range(rounds):
        if number >= 5 and least[torch.bfloat16] > 4 * least[torch.float32]:
            break
        for dtype, (x, y) in pairs.items():
            x @ y  # warms the caches for this format
            started = time.perf_counter()
            x @ y
            least[dtype] = min(least[dtype], time.perf_counter() - started)
    return least[torch.bfloat16] / least[torch.float32]


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: as named; for `auto` bfloat16 where it is fast, on other CUDA
    devices float16 (the loss is then scaled, see loss_scale.py), and else float32.
    """
    if name == "auto":
        if device.type == "cuda":  # GPUs that only emulate bfloat16 are fast at float16
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        fast = device.type == "cpu" and cpu_is_fast_at_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    found: torch.dtype = getattr(torch, name)
    return found


def read_scalars(values: Sequence[torch.Tensor]) -> list[float]:
    """The values of tensors of one element on one device, which is waited for once."""
    if not values:
        return []
    exact = any(value.dtype == torch.float64 for value in values)
    dtype = torch.float64 if exact else torch.float32
    together = torch.stack([value.detach().to(dtype).reshape(()) for value in values])
    found: list[float] = together.tolist()
    return found


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Products in `dtype`; a no-op for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
