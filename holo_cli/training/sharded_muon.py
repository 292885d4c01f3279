"""Muon over sharded matrices.

A process holds some rows of every matrix, and orthogonalising needs the whole one. Each matrix has
one owner: all processes send it their rows of the momentum, it orthogonalises, and sends back the
rows of the update. Both ways are one all-to-all for all matrices together. Owners are chosen so
that each has about the same number of elements, so a process never holds more than its share of
the model in whole matrices. The result is that of one process but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from holo_cli.training.optim import MOMENTUM, Muon, apply_update, orthogonal_updates


def owners(sizes: Sequence[int], processes: int) -> list[int]:
    """The owner of each matrix: largest first, to the one that has least; the same everywhere.

    >>> owners([4, 9, 4, 1], 2)
    [1, 0, 1, 1]
    """
    load = [0] * processes
    found = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        found[index] = owner = load.index(min(load))
        load[owner] += sizes[index]
    return found


def rows_of(rows: int, rank: int, processes: int) -> int:
    """How many of a tensor's rows a process holds: FSDP cuts like `torch.chunk`."""
    each = -(-rows // processes)
    return max(0, min(rows, (rank + 1) * each) - rank * each)


class ShardedMuon(Muon):
    """`Muon` for parameters that `fully_shard` has made, all on one mesh."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; all processes make it together."""
        for group in self.param_groups:
            parameters: list[nn.Parameter] = group["params"]
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            moments = _local([self.state[p][MOMENTUM] for p in parameters])
            own = _local(grads)
            torch._foreach_lerp_(moments, own, 1 - group["momentum"])
            nesterov = list(torch._foreach_lerp(own, moments, group["momentum"]))
            exchange = _Exchange(parameters)
            mine = exchange.to_owners(nesterov)
            done = orthogonal_updates(
                [mine[n] for n in exchange.owned], [parameters[n] for n in exchange.owned],
                self.rule,
            )  # fmt: skip
            like = nesterov[0]
            updates = [update.to(like.dtype) for update in done]
            for p, local, update in zip(
                parameters, _local(parameters), exchange.to_holders(updates, like), strict=True
            ):
                apply_update(p, local, update, group, self.rule)


def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The rows that this process holds; what is done to them in place is done to the tensor."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


class _Exchange:
    """Rows of matrices to their owners and back."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        first = parameters[0]
        assert isinstance(first, DTensor)
        mesh = first.device_mesh
        self.group = mesh.get_group(mesh.ndim - 1)
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        self.shapes = [p.shape for p in parameters]
        self.owner = owners([p.numel() for p in parameters], self.size)
        self.owned = [n for n, owner in enumerate(self.owner) if owner == self.rank]

    def _held(self, number: int, rank: int) -> torch.Size:
        rows, *rest = self.shapes[number]
        return torch.Size((rows_of(rows, rank, self.size), *rest))

    def _splits(self) -> tuple[list[int], list[int]]:
        """Elements that go to each owner, and those that come from each holder of the own."""
        out = [0] * self.size
        for number, owner in enumerate(self.owner):
            out[owner] += self._held(number, self.rank).numel()
        back = [sum(self._held(n, rank).numel() for n in self.owned) for rank in range(self.size)]
        return out, back

    def to_owners(self, local: Sequence[Tensor]) -> dict[int, Tensor]:
        """The local rows of every matrix -> the own matrices, whole, by number."""
        out, back = self._splits()
        order = sorted(range(len(local)), key=lambda n: (self.owner[n], n))
        sent = torch.cat([local[n].reshape(-1) for n in order])
        got = sent.new_empty(sum(back))
        dist.all_to_all_single(got, sent, back, out, group=self.group)
        parts: dict[int, list[Tensor]] = {n: [] for n in self.owned}
        for rank, block in enumerate(got.split(back)):
            shapes = [self._held(n, rank) for n in self.owned]
            pieces = block.split([shape.numel() for shape in shapes])
            for n, piece, shape in zip(self.owned, pieces, shapes, strict=True):
                parts[n].append(piece.view(shape))
        return {n: torch.cat(pieces) for n, pieces in parts.items()}

    def to_holders(self, updates: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        """The updates of the own matrices, in the order of `owned` -> local rows of all."""
        out, back = self._splits()
        rows = [[rows_of(len(u), rank, self.size) for rank in range(self.size)] for u in updates]
        pieces = [u.split(each) for u, each in zip(updates, rows, strict=True)]
        sent = torch.cat(
            [like.new_empty(0), *(p[rank].reshape(-1) for rank in range(self.size) for p in pieces)]
        )
        got = like.new_empty(sum(out))
        dist.all_to_all_single(got, sent, out, back, group=self.group)
        found: dict[int, Tensor] = {}
        for owner, block in enumerate(got.split(out)):
            numbers = [n for n, other in enumerate(self.owner) if other == owner]
            shapes = [self._held(n, self.rank) for n in numbers]
            pieces_of = block.split([shape.numel() for shape in shapes])
            for n, piece, shape in zip(numbers, pieces_of, shapes, strict=True):
                found[n] = piece.view(shape)
        return [found[n] for n in range(len(self.owner))]
