"""A radius per head, and the weighted mean for any kernel with or without one.

`general_attention` works through blocks of queries and computes their weights again in the backward
pass. `attention_within_radius` is for evaluation with a hard radius: it skips blocks of keys that
are too far from a block of queries and sums the others with a running maximum.

Legend: B rows, H heads, N = B H, S queries (the last S of L positions), d coordinates, e per head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.gravity_attention import blocks
from holo_cli.models.ngt.kernels import Kernel

TILE = 64  # tokens in a block that is computed or skipped as a whole


class RadiusCutoff(nn.Module):
    """A radius r per head beyond which tokens do not attract; a token always attracts itself.

    soft: log sigmoid((r^2 - d^2) / tau) is added to the log weight, so r has a gradient.
    hard: the same while training; in evaluation a weight beyond r is zero.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.full((config.heads,), config.radius))
        self.tau = config.tau
        self.hard = config.radius_mode == "hard"

    @property
    def cuts(self) -> bool:
        """Whether weights beyond the radius are zero: hard mode in evaluation."""
        return self.hard and not self.training

    def limit(self, score: Tensor, squared: Tensor) -> Tensor:
        """Log weights and squared distances, (B, H, S, L) -> log weights within the radius."""
        square = self.radius.square()[:, None, None]
        itself = _diagonal(score)
        if self.cuts:
            return score.masked_fill((squared > square) & ~itself, float("-inf"))
        gate = nn.functional.logsigmoid((square - squared) / self.tau)
        return score + gate.masked_fill(itself, 0)


def weights(
    kernel: Kernel, cutoff: RadiusCutoff | None, q: Tensor, k: Tensor, m: Tensor, log_m: Tensor
) -> Tensor:
    """q (B, H, S, d), k (B, H, L, d), m (B, H, S, 1), log_m (B, H, L, 1) -> (B, H, S, L).

    Rows sum to one; zero in the future. Memory is S L per head.
    """
    squared = kernel.squared(q, k)
    score = kernel.score(squared, m, log_m)
    if cutoff is not None:
        score = cutoff.limit(score, squared)
    if q.shape[2] > 1:
        score = score.masked_fill(~_past(score), float("-inf"))
    return torch.softmax(score, dim=-1)


def general_attention(
    kernel: Kernel,
    cutoff: RadiusCutoff | None,
    q: Tensor,
    k: Tensor,
    m: Tensor,
    log_m: Tensor,
    v: Tensor,
) -> Tensor:
    """Shapes as in `weights`, v (B, H, L, e) -> (B, H, S, e) in v's dtype; O(BLOCK L) memory."""

    def of_block(q: Tensor, k: Tensor, m: Tensor, log_m: Tensor, v: Tensor) -> Tensor:
        return weights(kernel, cutoff, q, k, m, log_m).to(v.dtype) @ v

    parts = []
    spans = list(blocks(q.shape[2], k.shape[2]))
    for rows, columns in spans:
        given = (q[:, :, rows], k[:, :, columns], m[:, :, rows], log_m[:, :, columns])
        if torch.is_grad_enabled() and len(spans) > 1:
            y = checkpoint(
                of_block, *given, v[:, :, columns], use_reentrant=False, preserve_rng_state=False
            )
        else:
            y = of_block(*given, v[:, :, columns])
        parts.append(y)
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


@torch.no_grad()
def attention_within_radius(
    kernel: Kernel, cutoff: RadiusCutoff, q: Tensor, k: Tensor, m: Tensor, log_m: Tensor, v: Tensor
) -> Tensor:
    """`general_attention` for a hard radius, skipping blocks of keys beyond it; no gradient."""
    batch, count, length, _ = q.shape
    before = k.shape[2] - length
    heads = torch.arange(count, device=q.device).repeat(batch)
    flat = [x.flatten(0, 1) for x in (q, k, m, log_m, v)]
    y = torch.empty_like(flat[4][:, before:])
    spans = [(s, min(s + TILE, k.shape[2])) for s in range(0, k.shape[2], TILE)]
    balls = [_ball(kernel, flat[1][:, start:end], heads) for start, end in spans]
    for first in range(0, length, TILE):
        last = min(first + TILE, length)
        mean = _RunningMean(kernel, cutoff, [x[:, first:last] for x in (flat[0], flat[2])], heads)
        ball = _ball(kernel, flat[0][:, first:last], heads)
        for (start, end), other in zip(spans, balls, strict=True):
            if start >= before + last:
                break
            end = min(end, before + last)
            # a block that has some query's own key is never skipped
            offset = before + first - start
            own = end > before + first
            near = None if own else _within(kernel, cutoff, ball, other, heads)
            mean.add([x[:, start:end] for x in (flat[1], flat[3], flat[4])], near, offset)
        y[:, first:last] = mean.value().to(y.dtype)
    return y.unflatten(0, (batch, count))


class _RunningMean:
    """A running weighted mean of values for one block of queries, (N, S, .)."""

    def __init__(
        self, kernel: Kernel, cutoff: RadiusCutoff, given: list[Tensor], heads: Tensor
    ) -> None:
        self.kernel, self.heads = kernel, heads
        self.q, self.m = given
        self.square = cutoff.radius.square()[heads][:, None, None]
        self.top = torch.full_like(self.m, float("-inf"))
        self.total = torch.zeros_like(self.m)
        self.values: Tensor | None = None

    def add(self, given: list[Tensor], near: Tensor | None, offset: int) -> None:
        """Add a block of keys for the rows `near`, (n,) int64 (None: all of them).

        `offset`: index of the first query's own key in the block; past its end where the whole
        block is in the past.
        """
        if self.values is None:
            self.values = (
                torch.zeros_like(given[2][:, :1]).to(self.m.dtype).repeat(1, self.q.shape[1], 1)
            )
        if near is not None and not len(near):
            return
        pick = (lambda x: x) if near is None else (lambda x: x[near])
        k, log_m, v = map(pick, given)
        heads = pick(self.heads)
        squared = self.kernel.squared(pick(self.q), k, heads)
        score = self.kernel.score(squared, pick(self.m), log_m, heads)
        cut = squared > pick(self.square)
        if offset < k.shape[1]:
            place = torch.arange(k.shape[1], device=k.device)
            own = offset + torch.arange(self.q.shape[1], device=k.device)[:, None]
            cut = (cut & (place != own)) | (place > own)
        score = score.masked_fill(cut, float("-inf"))
        old = pick(self.top)
        top = torch.maximum(old, score.amax(-1, keepdim=True))
        # a row without any key so far has no maximum: any finite one will do
        shift = top.clamp_min(torch.finfo(top.dtype).min)
        w, keep = (score - shift).exp(), (old - shift).exp()
        with torch.autocast(v.device.type, enabled=False):
            values = keep * pick(self.values) + w @ v.to(w.dtype)
        total = keep * pick(self.total) + w.sum(-1, keepdim=True)
        if near is None:
            self.top, self.total, self.values = top, total, values
        else:
            self.top[near], self.total[near], self.values[near] = top, total, values

    def value(self) -> Tensor:
        assert self.values is not None
        return self.values / self.total


Ball = tuple[Tensor, Tensor]  # centres (N, 1, d) and radii (N, 1, 1)


def _ball(kernel: Kernel, points: Tensor, heads: Tensor) -> Ball:
    """A ball that holds each row's points (N, S, d)."""
    centre = points.mean(1, keepdim=True)
    away = kernel.length(kernel.squared(centre, points, heads), heads)
    return centre, away.amax(-1, keepdim=True)


def _within(kernel: Kernel, cutoff: RadiusCutoff, a: Ball, b: Ball, heads: Tensor) -> Tensor:
    """Indices (n,) of the rows in which points of the two balls may be within the radius."""
    apart = kernel.length(kernel.squared(a[0], b[0], heads), heads) - a[1] - b[1]
    limit = kernel.length(cutoff.radius.square()[heads][:, None, None], heads)
    # a margin of a thousandth for rounding in the balls
    return (apart <= 1.001 * limit + 0.001).flatten().nonzero().flatten()


def _past(score: Tensor) -> Tensor:
    """(S, L), true where a key is not after the query; the queries are the last S positions."""
    rows, columns = score.shape[-2:]
    return torch.ones(rows, columns, dtype=torch.bool, device=score.device).tril(columns - rows)


def _diagonal(score: Tensor) -> Tensor:
    """(S, L), true where key and query are the same token."""
    rows, columns = score.shape[-2:]
    place = torch.arange(columns, device=score.device)
    return place == place[columns - rows :, None]
