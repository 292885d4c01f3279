"""What two processes do with background saves: `python -m tests.training.saving_in_two`.

The ranks are forks, as in `several.py`. Ends with 0 if everything was as it should be.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from holo_cli.checkpoint import Header, TensorFile
from holo_cli.checkpoint.parts import parts_folder
from holo_cli.checkpoint.stored import StoredTensors
from holo_cli.errors import CheckpointError
from holo_cli.training import sharded_saving
from holo_cli.training.sharded_saving import BackgroundSaves, PendingSave
from holo_cli.training.sharded_tensors import part_from
from tests.training.several import LOOPBACK, forked, free_ports

PATH = Path("a_last.safetensors")
WHOLE = {
    "model/even": torch.arange(12.0).view(6, 2),
    "model/odd": torch.arange(5.0),
    "model/one row": torch.ones(1, 3),  # the second process has nothing of it
    "model/number": torch.tensor(7.0),
    "rng/cpu": torch.arange(4, dtype=torch.uint8),
}


def header(step: int) -> Header:
    config = {"model": {"vocab_size": 3}, "training": {}, "data": {}}
    return Header(model="vanilla", config=config, tokenizer={}, run="a", step=step, kind="last")


class Run:
    """Tensors on two processes, and their saves."""

    def __init__(self) -> None:
        mesh = init_device_mesh("cpu", (2,))
        copies = {name: t.clone() for name, t in WHOLE.items()}
        self.tensors: dict[str, torch.Tensor] = {
            name: distribute_tensor(t, mesh, [Shard(0)]) if t.ndim and "rng" not in name
            else distribute_tensor(t, mesh, [Replicate()]) if "number" in name else t.clone()
            for name, t in copies.items()
        }  # fmt: skip
        self.step = 0
        self.saved: list[int] = []
        self.saves = BackgroundSaves(self._snapshot, lambda done: self.saved.append(done.step))

    def _snapshot(self) -> PendingSave:
        self.step += 1
        return PendingSave(PATH, header(self.step), {"model/tied": "model/odd"}, self.step)

    def change(self) -> None:
        for tensor in self.tensors.values():
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            local.add_(1)


def stored() -> tuple[int, dict[str, torch.Tensor]]:
    with TensorFile(PATH) as file:
        return file.header.step, file.read_all()


def same(found: dict[str, torch.Tensor], added: float) -> None:
    assert found.keys() == {*WHOLE, "model/tied"}
    for name, tensor in WHOLE.items():
        assert torch.equal(found[name], tensor + added), (name, found[name])
    assert torch.equal(found["model/tied"], found["model/odd"])


def check(rank: int) -> None:
    run, write = Run(), sharded_saving.write_part
    go = threading.Event()

    def held(*arguments: object) -> object:
        assert go.wait(600)
        return write(*arguments)  # type: ignore[arg-type]

    # training continues while it is written, and what it changes is not in the file
    sharded_saving.write_part = held  # type: ignore[assignment]
    run.saves.start(run.tensors)
    run.change()
    assert not PATH.exists()
    assert not run.saves.failed
    run.saves.poll()
    assert run.saved == []
    dist.barrier()
    go.set()
    # one save at a time: the second waits for the first
    run.saves.start(run.tensors)
    assert run.saved == [1]
    run.saves.finish()
    assert run.saved == [1, 2]
    dist.barrier()
    assert stored()[0] == 2
    same(stored()[1], 1)
    assert len(list(parts_folder(PATH).iterdir())) == 2

    # each process reads its own rows back
    with TensorFile(PATH) as file:
        for name, tensor in run.tensors.items():
            back = part_from(StoredTensors(file), name, tensor)
            mine = [t.to_local() if isinstance(t, DTensor) else t for t in (back, tensor)]
            assert torch.equal(*mine), name
    dist.barrier()

    # one process cannot write its part: both are told, and the checkpoint before stays
    def full(*arguments: object) -> object:
        if rank == 1:
            raise CheckpointError("No room to save it.", next_step="Make room.")
        return write(*arguments)  # type: ignore[arg-type]

    sharded_saving.write_part = full  # type: ignore[assignment]
    run.change()
    run.saves.start(run.tensors)
    with pytest.raises(CheckpointError, match=r"No room to save it\.") as caught:
        run.saves.finish()
    assert caught.value.next_step == "Make room."
    assert run.saved == [1, 2]
    dist.barrier()
    same(stored()[1], 1)
    assert len(list(parts_folder(PATH).iterdir())) == 3  # that of the first process was written
    dist.barrier()

    # the next save clears that away
    sharded_saving.write_part = write
    run.saves.start(run.tensors)
    run.saves.finish()
    dist.barrier()
    same(stored()[1], 2)
    assert len(list(parts_folder(PATH).iterdir())) == 2


def main() -> int:
    if LOOPBACK:
        os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    (port,) = free_ports(1)

    def work(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        dist.init_process_group("gloo", rank=rank, world_size=2)
        check(rank)

    return forked(2, work)


if __name__ == "__main__":
    sys.exit(main())
