"""One block of the memory: a few chunks of a few rows, in buffers small enough for a cache.

Within a chunk of c positions, with G the running sum of log a and X = b (k * v),

    M_t = sum_{s <= t} exp(G_t - G_s) X_s

is a product of matrices, where the first X has been given exp(G_first) times the plates before; the
last M of a chunk is what the next one starts from.

Unusual: positions lie last, so that every pass runs over long rows of memory. Angles are counted
from the block's start, and the plates are turned from block to block instead: exact however far the
sequence goes. No gradient of the (c, c) table of decays is ever formed: with dM, dX the gradients
of M and X, dG_t = <dM_t, M_t> - <dX_t, X_t>, and these are <dy_t, y_t> and <dv_t, v_t>, sums over a
head. They are added up within a chunk only, so that their rounding errors cannot pile up over
thousands of tokens.

Legend: n rows, H heads, e = C / H, R plates, f complex channels, p numbers per wave, g chunks of c
positions; a 2 after H is real part and imaginary part.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from holo_cli.layers.norm import EPS
from holo_cli.models.holographic.phasors import Pair, phasor
from holo_cli.models.holographic.waves import Front

CHUNK = 64  # positions of one product


class Part(NamedTuple):
    """Which piece of a sequence: rows, and `chunks` chunks of `length` positions from `start`."""

    rows: slice
    start: int
    chunks: int
    length: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows.stop - self.rows.start, self.chunks, self.length

    @property
    def positions(self) -> slice:
        return slice(self.start, self.start + self.chunks * self.length)

    def of(self, x: Tensor) -> Tensor:
        """(..., B, T) -> (g, n, ..., c)"""
        cut = x[..., self.rows, self.positions].unflatten(-1, self.shape[1:])
        return cut.movedim((-2, -3), (0, 1))

    def rows_first(self, x: Tensor) -> Tensor:
        """(B, T, H, e) -> (n, g, c, H, e)"""
        return x[self.rows, self.positions].unflatten(1, self.shape[1:])


class Block:
    """The buffers of a block, used again for every part of the same shape."""

    def __init__(self, front: Front, part: Part, like: Tensor) -> None:
        """`like`: log a, (H, B, T)."""
        rows, chunks, length = part.shape
        lead = (chunks, rows, like.shape[0])
        self.front = front
        self.raw, self.room, self.dcode = like.new_empty(
            3, *lead, 2, front.plates, front.numbers, length
        )
        self.bound, self.plates = like.new_empty(2, *lead, 2, front.plates, front.channels, length)
        self.decay = like.new_empty(*lead, length, length)
        angles = front.angles(0, chunks * length, like).unflatten(-1, (chunks, length))
        self.angles = angles.permute(2, 0, 1, 3)[:, None, None, None].contiguous()
        self.turn = phasor(front.angles(chunks * length, 1, like)[..., 0])  # (R, f), a block's
        self.into, self.out = front.matrices(like)

    def fill(
        self, code: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: Tensor, part: Part
    ) -> Tensor:
        """Make the plates of a part. `state`: those before it, (n, H, 2, R, f), turned as the part
        counts positions; returned are those after it, turned as the next part counts."""
        # (g, n, 2, R, H, p, c) -> (g, n, H, 2, R, p, c): queries, keys
        self.raw.copy_(part.of(code).permute(0, 1, 4, 2, 3, 5, 6))
        self.waves = self.front.waves(self.raw, self.angles, self.room)
        value = part.of(v).to(log_a.dtype)
        value = value if self.into is None else self.into @ value
        self.value = value.unflatten(-2, (2, -1))  # (g, n, H, 2, f, c)
        self.entry = part.of(b)[..., None, None, :]
        self.stored = self.value * self.entry
        self._fade(part.of(log_a))
        _times(self.bound, self.waves.of(1).pair, _over_plates(self.stored))
        for j in range(len(self.bound)):
            self.bound[j][..., 0] += self.first[j] * state
            _products(self.bound[j], self.decay[j].mT, self.plates[j])
            state = self.plates[j][..., -1]
        return torch.stack(self.turn.conj_times(_pair(state, 2)), dim=2)

    def answers(self) -> tuple[Tensor, Tensor]:
        """y (g, n, H, e, c) and 1 / rms, (g, n, H, 1, c). What each plate says takes the place of
        what was bound."""
        _conj_times(self.bound, self.waves.of(0).pair, _pair(self.plates, 3))
        y = (_sum_of_plates(self.bound) / self.front.plates).flatten(3, 4)
        y = y if self.out is None else self.out @ y
        return y, y.square().mean(-2, keepdim=True).add_(EPS).rsqrt_()

    def pull(
        self, dn: Tensor, dstate: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Gradients of normalised answers (g, n, H, e, c) and of the plates that `fill` returned
        -> gradients of code, v, log a and b, shaped as `part.of` gives them, and of the plates
        before. The block must have been filled, and is used up."""
        y, scale = self.answers()
        answer = y * scale
        dy = (dn - answer * (dn * answer).mean(-2, keepdim=True)) * scale
        dlog = (dy * y).sum(-2)  # (g, n, H, c): <dM, M>
        dy = dy if self.out is None else self.out.mT @ dy
        heard = _over_plates((dy / self.front.plates).unflatten(-2, (2, -1)))
        queries, keys = self.waves.of(0), self.waves.of(1)
        self.front.pull(
            self.dcode[..., 0, :, :, :], queries, self.angles.squeeze(3), heard,
            done=_pair(self.bound, 3), whole=_pair(self.plates, 3),
        )  # fmt: skip
        ends = self.plates[..., -1].clone()
        _times(self.plates, queries.pair, heard)  # from here on their gradients
        dstate = torch.stack(self.turn.times(_pair(dstate, 2)), dim=2)
        for j in reversed(range(len(self.bound))):
            self.plates[j][..., -1] += dstate
            dlog[j, :, :, -1] += (dstate * ends[j]).sum((2, 3, 4))
            _products(self.plates[j], self.decay[j], self.bound[j])
            dstate = self.first[j] * self.bound[j][..., 0]
        _conj_times(self.plates, keys.pair, _pair(self.bound, 3))
        self.front.pull(
            self.dcode[..., 1, :, :, :], keys, self.angles.squeeze(3), _over_plates(self.stored),
            done=_pair(self.plates, 3), whole=_pair(self.bound, 3),
        )  # fmt: skip
        dstored = _sum_of_plates(self.plates)  # (g, n, H, 2, f, c)
        db = (dstored * self.value).sum((3, 4))
        dvalue = (dstored * self.entry).flatten(3, 4)
        dv = dvalue if self.into is None else self.into.mT @ dvalue
        dlog -= db * self.entry[..., 0, 0, :]  # <dX, X>
        dlog = dlog.flip(-1).cumsum(-1).flip(-1)
        return (self.dcode.permute(0, 1, 3, 4, 2, 5, 6), dv, dlog, db), dstate

    def _fade(self, log_a: Tensor) -> None:
        """From log a (g, n, H, c): the table exp(G_t - G_s), and exp(G_first)."""
        total = log_a.cumsum(-1)
        self.first = log_a[..., :1, None, None].exp()  # (g, n, H, 1, 1, 1)
        torch.sub(total[..., :, None], total[..., None, :], out=self.decay)
        # the future is cut off before exp, and what is less than any number in full precision too,
        # since some libraries are slow at exp of very negative numbers
        least = math.log(torch.finfo(total.dtype).tiny) + 1
        self.decay.clamp_(least, 0.0).exp_().tril_()


def _pair(x: Tensor, dim: int) -> Pair:
    return Pair(*x.unbind(dim))


def _over_plates(x: Tensor) -> Pair:
    """(g, n, H, 2, f, c) -> real and imaginary part, each (g, n, H, 1, f, c)."""
    return _pair(x.unsqueeze(4), 3)


def _products(x: Tensor, table: Tensor, out: Tensor) -> None:
    """(n, H, 2, R, f, c) times (n, H, c, c) into `out`, for each row and head."""
    flat = x.view(-1, x[0, 0, ..., 0].numel(), x.shape[-1])
    torch.bmm(flat, table.flatten(0, 1), out=out.view(flat.shape))


def _times(out: Tensor, a: Pair, b: Pair) -> None:
    """a * b, with real and imaginary part along dimension 3 of `out`."""
    re, im = out.unbind(3)
    torch.mul(a.re, b.re, out=re).addcmul_(a.im, b.im, value=-1.0)
    torch.mul(a.re, b.im, out=im).addcmul_(a.im, b.re)


def _conj_times(out: Tensor, a: Pair, b: Pair) -> None:
    """conj(a) * b, likewise."""
    re, im = out.unbind(3)
    torch.mul(a.re, b.re, out=re).addcmul_(a.im, b.im)
    torch.mul(a.re, b.im, out=im).addcmul_(a.im, b.re, value=-1.0)


def _sum_of_plates(x: Tensor) -> Tensor:
    """(g, n, H, 2, R, f, c) -> (g, n, H, 2, f, c). Plate by plate: on CPUs a sum over a dimension
    in the middle takes several times as long."""
    first, *others = x.unbind(4)
    if not others:
        return first
    total = first + others[0]
    for other in others[1:]:
        total += other
    return total
