"""The memory over a whole sequence in chunks: the plain form for autograd, and a faster one with
its backward pass written by hand.

    M_t = a_t M_{t-1} + X_t,  X_t = b_t (k_t * v_t);   y_t = mean over plates of conj(q_t) * M_t
    n_t = y_t / rms(y_t)

Within a chunk of c positions, with G the running sum of log a,

    M_t = sum_{s <= t} exp(G_t - G_s) X_s + exp(G_t) M_before

is a (c, c) by (c, E) product, and the ends of the chunks obey the same recurrence. Differences are
cut off before exp and nothing is divided by a cumulative product, so any decay is exact.

`decayed_sum` is that recurrence for autograd (`torch.compile`, single positions, tests).
`chunk_scan` is the whole of it, keys to normalized readout, a few chunks of a few rows at a time in
buffers that stay in a core's cache. Only the plates before each span of chunks are kept; the
backward pass visits the spans in reverse and computes the rest again. Three points:
- Positions lie last in memory, so that every pass runs over long rows.
- Angles are counted from the start of a span, and the plates are rotated from span to span instead:
  exact however long the sequence is.
- The gradient of the (c, c) decays is never formed: with dM, dX the gradients of M and X,
  dG_t = <dM_t, M_t> - <dX_t, X_t> = <dy_t, y_t> - <dv_t, v_t>, sums over a head. They are added up
  within a chunk only, so rounding errors do not grow with the length.

Legend: B rows, T positions, H heads, e = C / H, R plates, f complex channels, P projections of p
numbers that a head's keys are made of (`key_transforms.py`), n rows and g chunks of c positions in
a span; a 2 after H is real part and imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from holo_cli.layers.norm import EPS
from holo_cli.layers.precision import no_autocast
from holo_cli.models.holographic.key_transforms import KeyTransform
from holo_cli.models.holographic.phasors import Pair, phasor

CHUNK = 64  # positions of one product
# Numbers in one buffer of a span. On CPUs a span's dozen buffers should stay in a core's caches,
# and operations should be long enough to hide what starting one costs; other devices are fast at
# large operations and slow at many small ones.
CPU_BUFFER, DEVICE_BUFFER = 1 << 18, 1 << 24


# -- the recurrence for autograd ------------------------------------------------------------------


def decayed_sum(log_a: Tensor, x: Tensor, state: Tensor | None = None) -> Tensor:
    """y_t = a_t y_{t-1} + x_t: log_a (N, T) <= 0, x (N, T, E), state (N, E) before the first
    position -> y (N, T, E). Calls itself on the ends of the chunks: O(T c E) in log_c T levels."""
    rows, length, width = x.shape
    if length <= CHUNK:
        total = log_a.cumsum(1)
        return _within_chunk(total, _decays(total), x, state)
    count = -(-length // CHUNK)
    if count * CHUNK != length:  # after the end nothing is added and nothing decays
        log_a = torch.nn.functional.pad(log_a, (0, count * CHUNK - length))
        x = torch.nn.functional.pad(x, (0, 0, 0, count * CHUNK - length))
    total = log_a.reshape(rows * count, CHUNK).cumsum(1)
    x = x.reshape(rows * count, CHUNK, width)
    decays = _decays(total)
    added = torch.bmm(decays[:, -1:], x).view(rows, count, width)  # by each chunk, at its end
    ends = decayed_sum(total[:, -1].view(rows, count), added, state)
    first = torch.zeros_like(ends[:, :1]) if state is None else state[:, None]
    before = torch.cat((first, ends[:, :-1]), dim=1).view(rows * count, width)
    y = _within_chunk(total, decays, x, before)
    return y.view(rows, count * CHUNK, width)[:, :length]


def _within_chunk(total: Tensor, decays: Tensor, x: Tensor, before: Tensor | None) -> Tensor:
    """total (N, c), decays (N, c, c), x (N, c, E), before (N, E) -> (N, c, E)."""
    if before is None:
        return torch.bmm(decays, x)
    return torch.baddbmm(total.exp()[:, :, None] * before[:, None], decays, x)


def _decays(total: Tensor) -> Tensor:
    """G (N, c) -> exp(G_t - G_s) for s <= t, else 0; (N, c, c)."""
    difference = total[:, :, None] - total[:, None]
    future = _future(total.shape[1], total.device)
    return difference.masked_fill(future, float("-inf")).exp()


@lru_cache(maxsize=128)
def _future(length: int, device: torch.device) -> Tensor:
    """(c, c), True where s > t."""
    with torch.inference_mode(False):  # a mask cached while generating may serve a training step
        return torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)


# -- the whole memory with a backward pass of its own ---------------------------------------------


def chunk_scan(
    qk: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: Tensor | None,
    transform: KeyTransform, offset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """-> readout of mean square 1 (B, T, H, e) in the dtype of v, and the plates at the end.

    qk (2, P, H, p, B, T), projections of queries and keys; v (H, e, B, T); log_a <= 0 and b
    (H, B, T), float32 at least; state (B, H, 2, R, f), None before the first position; offset
    (R, H, f) of the phases of queries, where `transform` takes one. Any strides; fastest where
    positions are contiguous.
    """
    heads, rows, _ = log_a.shape
    if state is None:
        state = log_a.new_zeros(rows, heads, 2, transform.plates, transform.channels)
    n, after = _ChunkScan.apply(qk, v, log_a, b, state, offset, transform)
    return n, after


class _ChunkScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qk: Tensor,
        v: Tensor,
        log_a: Tensor,
        b: Tensor,
        state: Tensor,
        offset: Tensor | None,
        transform: KeyTransform,
    ) -> tuple[Tensor, Tensor]:
        heads, width, rows, length = v.shape
        n = v.new_empty(rows, length, heads, width)
        after = torch.empty_like(state)
        starts = []
        with no_autocast(v):
            workspaces = _Workspaces(transform, log_a, offset)
            for group in workspaces.groups():
                plates = state[group[0].rows]
                for span in group:
                    starts.append(plates)
                    workspace = workspaces.of(span)
                    plates = workspace.fill(qk, v, log_a, b, plates, span)
                    y, scale = workspace.readout()
                    # to v's dtype first: a copy that also permutes and converts is the slowest
                    span.rows_first(n).copy_((y * scale).to(n.dtype).permute(1, 0, 4, 2, 3))
                after[group[0].rows] = plates
        ctx.save_for_backward(qk, v, log_a, b, offset, *starts)
        ctx.transform = transform
        return n, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qk, v, log_a, b, offset, *starts = ctx.saved_tensors
        dn, dafter = grads
        dqk, dv, dlog_a, db = (torch.empty_like(x) for x in (qk, v, log_a, b))
        dstate = torch.empty_like(dafter)
        doffset = None if offset is None else torch.zeros_like(offset)
        with no_autocast(v):
            workspaces = _Workspaces(ctx.transform, log_a, offset)
            for group in reversed(list(workspaces.groups())):
                dplates = dafter[group[0].rows]
                for span in reversed(group):
                    workspace = workspaces.of(span)
                    workspace.fill(qk, v, log_a, b, starts.pop(), span)
                    dy = span.rows_first(dn).permute(1, 0, 3, 4, 2).contiguous().to(log_a.dtype)
                    found, dplates = workspace.vjp(dy, dplates)
                    for whole, own in zip((dqk, dv, dlog_a, db), found, strict=True):
                        span.of(whole).copy_(own)
                    if doffset is not None:
                        doffset += workspace.offset_gradient()
                dstate[group[0].rows] = dplates
        return dqk, dv, dlog_a, db, dstate, doffset, None


class Span(NamedTuple):
    """A piece of a batch: some rows, and `chunks` chunks of `length` positions from `start`."""

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
        piece = x[..., self.rows, self.positions].unflatten(-1, self.shape[1:])
        return piece.movedim((-2, -3), (0, 1))

    def rows_first(self, x: Tensor) -> Tensor:
        """(B, T, H, e) -> (n, g, c, H, e)"""
        return x[self.rows, self.positions].unflatten(1, self.shape[1:])


def spans(rows: int, length: int, numbers: int, limit: int) -> Iterator[list[Span]]:
    """Groups of rows, each as its spans in order of time. A buffer has `numbers` for each position
    of a row, and at most `limit` in all, or those of one chunk."""
    chunks = max(1, limit // (numbers * CHUNK))
    together = min(rows, chunks)
    step = chunks // together * CHUNK
    whole = length - length % CHUNK
    for row in range(0, rows, together):
        some = slice(row, min(row + together, rows))
        found = [
            Span(some, at, min(step, whole - at) // CHUNK, CHUNK) for at in range(0, whole, step)
        ]
        if whole < length:
            found.append(Span(some, whole, 1, length - whole))
        yield found


class _Workspaces:
    """Workspaces by shape: most spans have the same shape and reuse the same memory."""

    def __init__(self, transform: KeyTransform, log_a: Tensor, offset: Tensor | None) -> None:
        self.transform, self.log_a, self.offset = transform, log_a, offset
        self.made: dict[tuple[int, int, int], Workspace] = {}

    def groups(self) -> Iterator[list[Span]]:
        heads, rows, length = self.log_a.shape
        limit = CPU_BUFFER if self.log_a.device.type == "cpu" else DEVICE_BUFFER
        numbers = heads * self.transform.plates * self.transform.channels
        return spans(rows, length, numbers, limit)

    def of(self, span: Span) -> Workspace:
        if span.shape not in self.made:
            self.made[span.shape] = Workspace(self.transform, span, self.log_a, self.offset)
        return self.made[span.shape]


class Workspace:
    """The buffers of a span, reused for every span of the same shape."""

    def __init__(
        self, transform: KeyTransform, span: Span, like: Tensor, offset: Tensor | None
    ) -> None:
        """`like`: log a, (H, B, T)."""
        rows, chunks, length = span.shape
        lead = (chunks, rows, like.shape[0])
        self.transform = transform
        self.buffers = transform.buffers(lead, length, like, offset)
        self.bound, self.plates = like.new_empty(
            2, *lead, 2, transform.plates, transform.channels, length
        )
        self.decay = like.new_empty(*lead, length, length)
        angles = transform.angles(0, chunks * length, like).unflatten(-1, (chunks, length))
        self.angles = angles.permute(2, 0, 1, 3)[:, None, None, None].contiguous()
        # (R, f), over the length of the span
        self.rotation = phasor(transform.angles(chunks * length, 1, like)[..., 0])
        self.to_channels, self.to_head = transform.matrices(like)

    def fill(
        self, qk: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: Tensor, span: Span
    ) -> Tensor:
        """Compute the plates of a span. `state`: those before it, (n, H, 2, R, f), rotated to the
        span's count of positions; returns those after it, rotated to the next span's."""
        # (g, n, 2, P, H, p, c) -> (g, n, H, 2, P, p, c): queries, keys
        self.buffers.raw.copy_(span.of(qk).permute(0, 1, 4, 2, 3, 5, 6))
        self.keys = self.transform.keys(self.buffers, self.angles)
        value = span.of(v).to(log_a.dtype)
        value = value if self.to_channels is None else self.to_channels @ value
        self.value = value.unflatten(-2, (2, -1))  # (g, n, H, 2, f, c)
        self.input_gate = span.of(b)[..., None, None, :]
        self.gated_value = self.value * self.input_gate
        self._fill_decay(span.of(log_a))
        _times(self.bound, self.keys.part(1).pair, _over_plates(self.gated_value))
        for j in range(len(self.bound)):
            self.bound[j][..., 0].add_(self.first_decay[j] * state)
            _products(self.bound[j], self.decay[j].mT, self.plates[j])
            state = self.plates[j][..., -1].contiguous()  # strided reads are slow: once only
        return torch.stack(self.rotation.conj_times(_pair(state, 2)), dim=2)

    def readout(self) -> tuple[Tensor, Tensor]:
        """y (g, n, H, e, c) and 1 / rms, (g, n, H, 1, c). Overwrites `bound` by what each plate
        reads."""
        _conj_times(self.bound, self.keys.part(0).pair, _pair(self.plates, 3))
        y = (_sum_of_plates(self.bound) / self.transform.plates).flatten(3, 4)
        y = y if self.to_head is None else self.to_head @ y
        return y, y.square().mean(-2, keepdim=True).add_(EPS).rsqrt_()

    def vjp(
        self, dn: Tensor, dstate: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Gradients of the normalized readout (g, n, H, e, c) and of the plates that `fill`
        returned -> gradients of qk, v, log a and b, shaped as `span.of` gives them, and of the
        plates before. Needs a filled workspace and overwrites it."""
        y, scale = self.readout()
        n = y * scale
        dy = (dn - n * (dn * n).mean(-2, keepdim=True)) * scale
        dlog = (dy * y).sum(-2)  # (g, n, H, c): <dM, M>
        dy = dy if self.to_head is None else self.to_head.mT @ dy
        dread = _over_plates((dy / self.transform.plates).unflatten(-2, (2, -1)))
        queries, keys = self.keys.part(0), self.keys.part(1)
        self.transform.vjp(
            0, self.buffers, queries, self.angles.squeeze(3), dread,
            product=_pair(self.bound, 3), plates=_pair(self.plates, 3),
        )  # fmt: skip
        ends = self.plates[..., -1].clone()
        _times(self.plates, queries.pair, dread)  # from here on `plates` holds their gradients
        dstate = torch.stack(self.rotation.times(_pair(dstate, 2)), dim=2)
        for j in reversed(range(len(self.bound))):
            self.plates[j][..., -1].add_(dstate)
            dlog[j, :, :, -1].add_((dstate * ends[j]).sum((2, 3, 4)))
            _products(self.plates[j], self.decay[j], self.bound[j])
            dstate = self.first_decay[j] * self.bound[j][..., 0].contiguous()
        _conj_times(self.plates, keys.pair, _pair(self.bound, 3))
        self.transform.vjp(
            1, self.buffers, keys, self.angles.squeeze(3), _over_plates(self.gated_value),
            product=_pair(self.plates, 3), plates=_pair(self.bound, 3),
        )  # fmt: skip
        dgated = _sum_of_plates(self.plates)  # (g, n, H, 2, f, c)
        db = (dgated * self.value).sum((3, 4))
        dvalue = (dgated * self.input_gate).flatten(3, 4)
        dv = dvalue if self.to_channels is None else self.to_channels.mT @ dvalue
        dlog -= db * self.input_gate[..., 0, 0, :]  # <dX, X>
        dlog = dlog.flip(-1).cumsum(-1).flip(-1)
        return (self.buffers.grad.permute(0, 1, 3, 4, 2, 5, 6), dv, dlog, db), dstate

    def offset_gradient(self) -> Tensor:
        """Of the offset (R, H, f), by this span's queries; after `vjp`."""
        found = self.transform.offset_gradient(self.buffers)
        assert found is not None
        return found

    def _fill_decay(self, log_a: Tensor) -> None:
        """From log a (g, n, H, c): the table exp(G_t - G_s), and exp(G_first)."""
        total = log_a.cumsum(-1)
        self.first_decay = log_a[..., :1, None, None].exp()  # (g, n, H, 1, 1, 1): exp(G_first)
        torch.sub(total[..., :, None], total[..., None, :], out=self.decay)
        # cut off the future before exp, and what underflows too: some libraries are slow at exp of
        # very negative numbers
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
