"""Two training processes, for test_distributed.py: `python -m tests.training.one_of_two`.

As torchrun starts its processes: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set. Without a
RANK this process forks both, so that all is imported once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from holo_cli.checkpoint import read_header
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import Stopped
from holo_cli.training.run import resume, train
from holo_cli.training.stopping import StopRequest
from tests.training.growing import register
from tests.training.several import forked, import_once


def config(given: dict[str, Any]) -> Resolved:
    return resolve("growing", flags=given, env={})


def categories(given: dict[str, Any]) -> Resolved:
    """A model whose balance loss is no mean over rows."""
    flags = given | {"model.layers": 1, "model.experts": 3, "model.balance": 1.0}
    return resolve("holographic", flags=flags, env={})


class OneAsks(StopRequest):
    """A request to stop that reaches the second process only, at its n-th look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks if os.environ.get("RANK") == "1" else 10**9

    def __bool__(self) -> bool:
        self.left -= 1
        return bool(self.reason) or self.left < 0


def one_rank() -> None:
    given = json.loads(Path("config.json").read_text(encoding="utf-8"))
    ports = iter(os.environ["PORTS"].split())
    told: list[dict[str, Any]] = []

    def alone(**changes: Any) -> Resolved:
        os.environ["MASTER_PORT"] = next(ports)
        return config(given | changes)

    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        train(alone(), run="two", events=told.append)
        alone()
        train(categories(given), run="two-categories", events=told.append)
        drop = {"model.dropout": 0.2, "training.grad_accum": 2, "training.batch_size": 1}
        train(alone(**drop), run="whole", events=told.append)
        with pytest.raises(Stopped):
            train(alone(**drop), run="parts", stop_at=3, events=told.append)
        alone()
        with pytest.raises(Stopped):  # one micro-step into the sixth, at the request of one process
            resume("parts", stop=OneAsks(5), events=told.append)
        header = read_header("checkpoints/parts_last.safetensors")
        assert (header.step, header.state["micro"]) == (5, 1)
        alone()
        resume("parts", events=told.append)
    if os.environ["RANK"] != "0":
        assert not told  # only the first process speaks


def main() -> int:
    """Both ranks, as forks."""
    import_once([])

    def work(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        one_rank()

    return forked(2, work)


if __name__ == "__main__":
    sys.exit(one_rank() if "RANK" in os.environ else main())
