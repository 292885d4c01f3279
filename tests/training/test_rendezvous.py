"""Processes that do not meet say so in one sentence, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from holo_cli.errors import TrainingError, UsageError
from holo_cli.training import distributed
from tests.training.several import LOOPBACK, free_ports
from tests.training.test_restart import LONG, ROOT

available = dist.is_available() and dist.is_gloo_available()
needs_gloo = pytest.mark.skipif(not available, reason="this PyTorch has no gloo")


def alone(rank: int) -> dict[str, str]:
    """The environment of one process of two, whose other one does not come."""
    return {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(*free_ports(1)), "HOLO_RENDEZVOUS_TIMEOUT": "1",
        "GLOO_SOCKET_IFNAME": LOOPBACK or "",
    }  # fmt: skip


@needs_gloo
@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_alone_ends_in_time(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = alone(rank)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"did not meet at 127\.0\.0\.1:") as caught:
        distributed._join("gloo")
    assert time.monotonic() - began < 120
    assert "within 1 s" in str(caught.value)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 1
    assert "HOLO_RENDEZVOUS_TIMEOUT" in caught.value.next_step


@pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")
def test_each_start_on_one_store_has_a_part_of_its_own() -> None:
    """torchrun's store outlives the processes that it starts again."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def meet(rank: int, seconds: float) -> tuple[bytes, ...]:
        client = dist.TCPStore("127.0.0.1", server.port, is_master=False)
        own = distributed.store_of_this_start(client, rank, 3, seconds)
        own.set(f"address/{rank}", f"{rank}{os.urandom(4).hex()}")
        return tuple(own.get(f"address/{other}") for other in range(3))

    found = []
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            seen = list(pool.map(meet, range(3), [30.0] * 3))
            assert len(set(seen)) == 1  # all see the addresses of this start
            found.append(seen[0])
            # a start in which the first process, or another one, is lost before it has come
            for ranks in ([1, 2], [0, 1]):
                for one in [pool.submit(meet, rank, 0.3) for rank in ranks]:
                    with pytest.raises((TimeoutError, dist.DistStoreError)):
                        one.result()
    assert len({address for seen in found for address in seen}) == 9


@pytest.mark.parametrize("given", ["soon", "0", "-3", "1e9"])
def test_a_wrong_number_of_seconds(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_RENDEZVOUS_TIMEOUT", given)
    with pytest.raises(UsageError, match=f"HOLO_RENDEZVOUS_TIMEOUT is '{given}'"):
        distributed.rendezvous_timeout()


@needs_gloo
@pytest.mark.skipif(LONG not in os.environ, reason=f"starts a command; set {LONG}=1 to run it")
def test_the_command_ends_with_1(prepared: Path, home: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "holo_cli", "train", "--model", "vanilla", "--data", str(prepared),
         "--device", "cpu", "--run", "a"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | alone(1),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    assert "did not meet at 127.0.0.1:" in ran.stderr
    assert "Traceback" not in ran.stderr
