"""The memory over a whole sequence, forward and backward by hand; the plain form is in `memory.py`.

    M_t = a_t M_{t-1} + b_t (k_t * v_t);   y_t = mean over plates of conj(q_t) * M_t;   n = y / rms

The sequence is taken in blocks that stay in a core's cache (`block.py`). Nothing of the size of the
plates is kept over the whole length: the backward pass goes through the blocks in reverse, from the
plates kept at their starts, and makes the rest again.

Legend: B rows, T positions, H heads, e = C / H, R plates, f complex channels, p numbers per wave.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from holo_cli.models.holographic.block import CHUNK, Block, Part
from holo_cli.models.holographic.phasors import full_precision
from holo_cli.models.holographic.waves import Front

# Numbers in one buffer of a block: on CPUs a block's dozen buffers are to fit a core's cache, while
# devices that are fast at large operations and slow at many small ones are given large ones.
CACHED, LARGE = 1 << 17, 1 << 24


def sweep(
    code: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: Tensor | None, front: Front
) -> tuple[Tensor, Tensor]:
    """-> answers of mean square 1 (B, T, H, e) in v's dtype, and the plates after the last one.

    code (2, R, H, p, B, T), what queries and keys are made of; v (H, e, B, T); log_a <= 0 and b
    (H, B, T), float32 at least; state (B, H, 2, R, f), None before the first position. Of any
    strides, and fastest where positions lie next to each other.
    """
    heads, rows, _ = log_a.shape
    if state is None:
        state = log_a.new_zeros(rows, heads, 2, front.plates, front.channels)
    n, after = _Sweep.apply(code, v, log_a, b, state, front)
    return n, after


def parts(rows: int, length: int, numbers: int, most: int) -> Iterator[list[Part]]:
    """Groups of rows, each as its parts in the order of time; `numbers` of a buffer belong to each
    position of a row, and a buffer has at most `most`, or those of one chunk."""
    chunks = max(1, most // (numbers * CHUNK))
    together = min(rows, chunks)
    step = chunks // together * CHUNK
    whole = length - length % CHUNK
    for row in range(0, rows, together):
        some = slice(row, min(row + together, rows))
        found = [
            Part(some, at, min(step, whole - at) // CHUNK, CHUNK) for at in range(0, whole, step)
        ]
        if whole < length:
            found.append(Part(some, whole, 1, length - whole))
        yield found


class _Blocks:
    """Blocks by shape: most parts have the same, and go through the same memory."""

    def __init__(self, front: Front, log_a: Tensor) -> None:
        self.front, self.log_a = front, log_a
        self.made: dict[tuple[int, int, int], Block] = {}

    def groups(self) -> Iterator[list[Part]]:
        heads, rows, length = self.log_a.shape
        most = CACHED if self.log_a.device.type == "cpu" else LARGE
        return parts(rows, length, heads * self.front.plates * self.front.channels, most)

    def of(self, part: Part) -> Block:
        if part.shape not in self.made:
            self.made[part.shape] = Block(self.front, part, self.log_a)
        return self.made[part.shape]


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, code: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: Tensor, front: Front
    ) -> tuple[Tensor, Tensor]:
        heads, width, rows, length = v.shape
        n = v.new_empty(rows, length, heads, width)
        after = torch.empty_like(state)
        starts = []
        with full_precision(v):
            blocks = _Blocks(front, log_a)
            for group in blocks.groups():
                plates = state[group[0].rows]
                for part in group:
                    starts.append(plates)
                    block = blocks.of(part)
                    plates = block.fill(code, v, log_a, b, plates, part)
                    y, scale = block.answers()
                    # to v's dtype first: a copy that also turns and converts is the slowest
                    part.rows_first(n).copy_((y * scale).to(n.dtype).permute(1, 0, 4, 2, 3))
                after[group[0].rows] = plates
        ctx.save_for_backward(code, v, log_a, b, *starts)
        ctx.front = front
        return n, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        code, v, log_a, b, *starts = ctx.saved_tensors
        dn, dafter = grads
        dcode, dv, dlog_a, db = (torch.empty_like(x) for x in (code, v, log_a, b))
        dstate = torch.empty_like(dafter)
        with full_precision(v):
            blocks = _Blocks(ctx.front, log_a)
            for group in reversed(list(blocks.groups())):
                dplates = dafter[group[0].rows]
                for part in reversed(group):
                    block = blocks.of(part)
                    block.fill(code, v, log_a, b, starts.pop(), part)
                    given = part.rows_first(dn).permute(1, 0, 3, 4, 2).contiguous().to(log_a.dtype)
                    found, dplates = block.pull(given, dplates)
                    for whole, own in zip((dcode, dv, dlog_a, db), found, strict=True):
                        part.of(whole).copy_(own)
                dstate[group[0].rows] = dplates
        return dcode, dv, dlog_a, db, dstate, None
