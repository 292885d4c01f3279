"""What glibc is asked to do with freed memory, in a process of its own: it cannot be undone."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from holo_cli.training.allocator import SETTINGS, keep_freed_memory

FAULTS = """
import ctypes, os, resource
from holo_cli.training.allocator import keep_freed_memory
import torch
def work():
    for _ in range(20):
        torch.empty(3_000_000).fill_(1)  # 12 MB
for keep in (False, True):
    if os.fork():
        assert os.wait()[1] == 0
        continue
    # a threshold of its own would rise with the first block; fixed, the call is compared
    M_MMAP_THRESHOLD = -3
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
    if keep:
        assert keep_freed_memory()
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
    os._exit(0)
"""


def faults() -> tuple[int, int]:
    """Page faults of asking for the same block again and again: given back and kept."""
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    given_back, kept = map(int, ran.stdout.split())
    return given_back, kept


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_blocks_are_used_again() -> None:
    pages = 20 * 12_000_000 // resource.getpagesize()
    given_back, kept = faults()
    # large pages make one fault of many: what is given back faults every time, what is kept never
    assert given_back > 20
    assert kept < min(pages, given_back) / 2


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
