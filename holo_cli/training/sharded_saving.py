"""Checkpoints of a sharded run, written in parts and in the background.

`torch.distributed.checkpoint` (DCP) copies each process's part to its memory, plans who writes what
(what several processes hold is written once), and lets a thread of each process write while
training continues. Its own formats keep a pickle beside the tensors (`.metadata`), or no record of
which save a file is of; so the files are holo's (`checkpoint/parts.py`), by a `StorageWriter`.

At most one save is under way: the next one waits for it. It talks to the other processes over a
group of its own, so that its exchanges do not mix with those of the training.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import DefaultSavePlanner, StorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult

from holo_cli.checkpoint.header import Header
from holo_cli.checkpoint.parts import (
    PartFile,
    TensorPiece,
    clear_parts,
    part_name,
    parts_folder,
    parts_of,
)
from holo_cli.checkpoint.write import FORMAT_NAMES, check_room
from holo_cli.checkpoint.write_parts import write_index, write_part
from holo_cli.errors import CheckpointError, HoloError
from holo_cli.training.distributed import PATIENCE


@dataclass(frozen=True)
class PendingSave:
    """What a save is of: where it goes, its header as of that moment, further names of tensors."""

    path: Path
    header: Header
    shared: Mapping[str, str]
    step: int


class Share(NamedTuple):
    """The name of the file that a process writes; its number among the parts."""

    part: str
    number: int


class Stored(NamedTuple):
    """A piece of a tensor on the disk, in the part of this name and size."""

    part: PartFile
    dtype: str
    shape: list[int]  # of the whole tensor
    piece: TensorPiece


class PartsWriter(StorageWriter):
    """DCP's view of a save: `write_part` in every process, `write_index` in the first one."""

    def __init__(self, pending: PendingSave) -> None:
        super().__init__()
        self.pending = pending

    def reset(self, checkpoint_id: Any = None) -> None:
        """One writer makes one checkpoint: there is nothing to reset."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return isinstance(checkpoint_id, str | Path)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:  # what a killed save has left takes room
            clear_parts(self.pending.path, keep=parts_of(self.pending.path))

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        needed = sum(item.tensor_storage_size() or 0 for plan in plans for item in plan.items)
        check_room(self.pending.path, needed)
        token = secrets.token_hex(4)
        return [
            replace(plan, storage_data=Share(part_name(self.pending.step, token, rank), rank))
            for rank, plan in enumerate(plans)
        ]

    def write_data(
        self, plan: SavePlan, planner: SavePlanner
    ) -> torch.futures.Future[list[WriteResult]]:
        share: Share = plan.storage_data
        tensors: dict[str, Tensor] = {}
        first: dict[str, int] = {}
        whole: dict[str, list[int]] = {}
        items = []
        for item in plan.items:
            assert item.tensor_data is not None, "all that is saved is tensors"
            sizes = item.tensor_data.chunk.sizes
            if sizes and not sizes[0] and item.tensor_data.size[0]:
                continue  # more processes than rows
            name = item.index.fqn
            found = planner.resolve_data(item)
            assert isinstance(found, Tensor)
            assert name not in tensors, "a process holds one piece of a tensor"
            tensors[name] = found.detach()
            first[name] = item.tensor_data.chunk.offsets[0] if sizes else 0
            whole[name] = list(item.tensor_data.size)
            items.append(item)
        results = []
        if tensors:
            size, digests = write_part(self.pending.path, share.part, tensors, first)
            part = PartFile(name=share.part, bytes=size)
            for item in items:
                name = item.index.fqn
                rows = len(tensors[name]) if tensors[name].ndim else 1
                piece = TensorPiece(
                    part=share.number, first=first[name], rows=rows, crc32=digests[name]
                )
                stored = Stored(part, FORMAT_NAMES[tensors[name].dtype], whole[name], piece)
                results.append(WriteResult(item.index, tensors[name].nbytes, stored))
        done: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        parts: list[PartFile] = []
        tensors: dict[str, tuple[str, list[int], list[TensorPiece]]] = {}
        for written in results:
            if not written:
                continue
            part: PartFile = written[0].storage_data.part
            self._check_there(part)
            parts.append(part)
            for result in written:
                stored: Stored = result.storage_data
                piece = stored.piece.model_copy(update={"part": len(parts) - 1})
                tensors.setdefault(result.index.fqn, (stored.dtype, stored.shape, []))[2].append(
                    piece
                )
        pending = self.pending
        write_index(pending.path, pending.header, parts, tensors, pending.shared)

    def _check_there(self, part: PartFile) -> None:
        folder = parts_folder(self.pending.path)
        if not (folder / part.name).exists():
            raise CheckpointError(
                f"A part that another process has written, {part.name}, is not in {folder} here.",
                next_step="All machines of a run must see the same folder checkpoints/: use a "
                "network disk, or one machine.",
            )


class BackgroundSaves:
    """The saves of a sharded run, one at a time. All processes must call each method together, but
    for `poll` and `failed`.

    `pending` describes the moment of a save; `on_saved` is called in the thread that trains, once
    it is on the disk.
    """

    def __init__(
        self, pending: Callable[[], PendingSave], on_saved: Callable[[PendingSave], None]
    ) -> None:
        self.pending, self.on_saved = pending, on_saved
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._under_way: tuple[Future[Any], PendingSave] | None = None

    @property
    def failed(self) -> bool:
        """Whether the save under way has failed, as far as this process knows."""
        if self._under_way is None or not self._under_way[0].done():
            return False
        return self._under_way[0].exception() is not None

    def start(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors and write them in the background, after the save before is complete.

        Raises what `finish` raises.
        """
        self.finish()
        pending = self.pending()
        future = dcp.async_save(
            {name: t for name, t in tensors.items() if name not in pending.shared},
            storage_writer=PartsWriter(pending),
            # what differs between processes unnoticed (a buffer, say) is the first one's
            planner=DefaultSavePlanner(
                flatten_state_dict=False,
                flatten_sharded_tensors=False,
                dedup_save_to_lowest_rank=True,
            ),
            process_group=self._group,
        )
        assert isinstance(future, Future)
        self._under_way = future, pending

    def poll(self) -> None:
        """Report a save that is complete."""
        if self._under_way is not None and self._under_way[0].done() and not self.failed:
            self.finish()

    def finish(self) -> None:
        """Wait until the save under way is on the disk.

        Raises CheckpointError where a process could not write its part; the checkpoint before is
        then untouched. Raises RuntimeError where a process is lost.
        """
        if self._under_way is None:
            return
        future, pending = self._under_way
        self._under_way = None
        try:
            future.result()
        except CheckpointException as error:
            raise _first(error) from error
        self.on_saved(pending)


def _first(error: CheckpointException) -> BaseException:
    """What went wrong in the first process that failed: the same in all of them."""
    rank = min(error.failures)
    found = error.failures[rank][0]
    return found if isinstance(found, HoloError | RuntimeError | OSError) else error
