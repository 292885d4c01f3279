"""Asking glibc to keep what a training step frees for the next step.

By default glibc takes a block of more than some megabytes straight from the kernel and gives it
back when it is freed, and gives back the top of its heap. A training step frees and asks for the
same few dozen blocks every time, so the kernel has to find and clear the same pages step after
step. PyTorch has no pool of its own on the CPU.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
LARGEST_BLOCK = 32 * 2**20  # the most that glibc accepts for M_MMAP_THRESHOLD
KEPT = 2**30
# set in the environment, these take precedence
SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have freed blocks stay with the process; False where the C library is not glibc, or where the
    environment says how it is to behave."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in SETTINGS):
        return False
    library = ctypes.CDLL(None)
    return bool(
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and library.mallopt(M_TRIM_THRESHOLD, KEPT)
    )
