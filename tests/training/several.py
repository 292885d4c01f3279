"""Training by changing numbers of processes: `python -m tests.training.several PLAN`.

PLAN is a JSON file: a list of stages, each {"world": n, "do": "train" or "resume", ...}. The ranks
are forks of this process, so that torch is imported once, and stage after stage the first n of them
train together, as torchrun would start them. Ends with 0 if all went well.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holo_cli.checkpoint.parts import parts_folder, parts_of
from holo_cli.config.resolve import resolve
from holo_cli.errors import HoloError, Stopped
from holo_cli.training.run import resume, train
from holo_cli.training.stopping import StopRequest

PATIENCE = 600.0  # seconds for one stage, on a machine that is busy otherwise
LOOPBACK = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)


def ignore(event: dict[str, Any]) -> None:
    pass


class StopAfter(StopRequest):
    """Asks for a stop when a trainer has looked so often, once before each forward pass."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0 or super().__bool__()


def act(stage: dict[str, Any]) -> None:
    """One stage in one process. A refusal that `refused` expects is written to the file it names;
    a stop is no failure."""
    if stage["do"] == "check":  # whether the last checkpoint is in parts
        last = Path(f"checkpoints/{stage['run']}_last.safetensors")
        assert bool(parts_of(last)) == parts_folder(last).exists() == stage["parts"]
        return
    known = {key: stage[key] for key in ("run", "stop_at") if key in stage}
    try:
        if stage["do"] == "train":
            resolved = resolve(stage["model"], flags=stage["flags"], env={})
            train(resolved, events=ignore, **known)
        else:
            resume(
                stage["run"], events=ignore, stop_at=stage.get("stop_at"),
                overrides=stage.get("overrides"),
                stop=StopAfter(stage["stop_after"]) if "stop_after" in stage else None,
            )  # fmt: skip
    except Stopped:
        pass
    except HoloError as error:
        if "refused" not in stage:
            raise
        Path(stage["refused"]).write_text(str(error), encoding="utf-8")


def wait_for(number: int, world: int) -> None:
    """Until every rank of a stage is through it."""
    until = time.monotonic() + PATIENCE
    while not all(Path(f"stage-{number}-{rank}").exists() for rank in range(world)):
        if time.monotonic() > until:
            raise TimeoutError(f"stage {number} does not end")
        time.sleep(0.02)


def rank_of(rank: int, stages: list[dict[str, Any]], ports: list[int]) -> None:
    """All stages of one rank."""
    for number, stage in enumerate(stages):
        if number:
            wait_for(number - 1, stages[number - 1]["world"])
        if rank < stage["world"]:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(stage["world"]),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[number]),
            }  # fmt: skip
            act(stage)
            Path(f"stage-{number}-{rank}").touch()


def free_ports(count: int) -> list[int]:
    """Ports that stay free until they are used: below those that systems hand out to whoever asks
    for any, and apart from those of other processes of the same test run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, size = 20_000 + worker % 24 * 500, 500
    begin = secrets.randbelow(size)  # beside another test run
    found: list[socket.socket] = []
    for at in range(size):
        if len(found) == count:
            break
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", first + (begin + at) % size))
        except OSError:
            one.close()
        else:
            found.append(one)
    ports = [int(s.getsockname()[1]) for s in found]
    for s in found:
        s.close()
    assert len(ports) == count
    return ports


def import_once(stages: list[dict[str, Any]]) -> None:
    """What each fork would import again for itself, which takes longer than its training."""
    import torch.distributed.tensor
    import torch.utils.tensorboard

    if any(stage.get("flags", {}).get("training.shard") for stage in stages):
        import torch._dynamo  # noqa: F401


def main() -> int:
    stages = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if LOOPBACK:
        os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    ports = free_ports(len(stages))
    import_once(stages)
    world = max(stage["world"] for stage in stages)
    return forked(world, lambda rank: rank_of(rank, stages, ports))


def forked(world: int, work: Callable[[int], None]) -> int:
    """Run `work(rank)` in a fork for each rank; the exit code of `end_of`."""
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(rank)
                code = 0
            except BaseException:  # noqa: BLE001 - a fork must not run its parent's code
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return end_of(children)


def end_of(children: list[int]) -> int:
    """0 when all have ended with 0; the first that has not takes the others with it."""
    left = set(children)
    while left:
        child, status = os.wait()
        left.discard(child)
        if status:
            for other in left:
                os.kill(other, 9)
            for _ in left:
                os.wait()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
