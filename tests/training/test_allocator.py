"""What glibc is asked to do with freed memory, in a process of its own: it cannot be undone."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from holo_cli.training.allocator import SETTINGS, keep_freed_memory

FAULTS = """
import resource
from holo_cli.training.allocator import keep_freed_memory
import torch
if {keep}:
    assert keep_freed_memory()
def work():
    for _ in range(20):
        torch.empty(3_000_000).fill_(1)  # 12 MB
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    """Page faults of asking for the same block again and again."""
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    # a threshold of its own would rise with the first block; fixed, the comparison is of the call
    if not keep:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_blocks_are_used_again() -> None:
    pages = 20 * 12_000_000 // resource.getpagesize()
    given_back, kept = faults(keep=False), faults(keep=True)
    # large pages make one fault of many: what is given back faults every time, what is kept never
    assert given_back > 20
    assert kept < min(pages, given_back) / 2


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
