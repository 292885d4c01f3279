"""A radius per head, and the weighted mean for any kernel with or without one.

`general_attention` works through blocks of queries and computes their weights again in the backward
pass. `attention_within_radius` is for evaluation with a hard radius: tiles with a threshold, from
which keys too far from a block of queries are left out.

Legend: B rows, H heads, N = B H, S queries (the last S of L positions), d coordinates, e per head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holo_cli.models.ngt import tiles
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.gravity_attention import blocks
from holo_cli.models.ngt.kernels import Kernel, with_masses
from holo_cli.models.ngt.tiles import tiled_attention

SAMPLE = 64  # keys that are looked at first
USEFUL = 0.9  # share of them within reach above which no key is dropped


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
        """Log weights (overwritten) and squared distances, (B, H, S, L) -> log weights in reach."""
        square = self.radius.square()[:, None, None]
        if self.cuts:
            beyond = squared > square
            _itself(beyond).fill_(False)
            return score.masked_fill_(beyond, float("-inf"))
        gate = nn.functional.logsigmoid((square - squared) / self.tau)
        return score + gate.masked_fill(_diagonal(score), 0)


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
    """`general_attention` for a hard radius in tiles (`tiles.py`); no gradient."""
    tiled = q.shape[2] > 1 and not torch.compiler.is_compiling()
    form = kernel.tile_form(q, k, cutoff.radius.square()) if tiled else None
    if form is None:
        return general_attention(kernel, cutoff, q, k, m, log_m, v)
    u = with_masses(v, log_m.exp()).flatten(0, 1)
    return tiled_attention(form, u, keys_in_reach(kernel, cutoff, q, k)).unflatten(0, q.shape[:2])


def keys_in_reach(kernel: Kernel, cutoff: RadiusCutoff, q: Tensor, k: Tensor) -> Tensor | None:
    """(N, blocks, L) bool: keys within the radius of a ball around a block's queries.

    By the triangle inequality no other key is within the radius of one of them. None where that
    would save little, judged by a sample of the keys, and on GPUs, which would wait for the counts.
    """
    if q.device.type != "cpu" or k.shape[2] <= tiles.KEYS:
        return None
    batch, count, queries, _ = q.shape
    heads = torch.arange(count).repeat(batch)
    blocks = -(-queries // tiles.QUERIES)
    # the last block is filled up with its last query
    place = torch.arange(blocks * tiles.QUERIES).clamp_max(queries - 1)
    points = q.flatten(0, 1)[:, place].unflatten(1, (blocks, tiles.QUERIES))
    centre = points.mean(2)  # (N, blocks, d)
    every = heads.repeat_interleave(blocks)
    inside = kernel.squared(centre.flatten(0, 1).unsqueeze(1), points.flatten(0, 1), every)
    ball = kernel.length(inside, every).amax(-1).view(-1, blocks, 1)
    limit = kernel.length(cutoff.radius.square()[heads][:, None, None], heads)

    def near(keys: Tensor) -> Tensor:
        away = kernel.length(kernel.squared(centre, keys, heads), heads)
        # a margin of a thousandth for rounding in the balls
        return away - ball <= 1.001 * limit + 0.001

    keys = k.flatten(0, 1)
    if (
        keys.shape[1] > 16 * SAMPLE
        and near(keys[:, :: keys.shape[1] // SAMPLE]).double().mean() > USEFUL
    ):
        return None
    return near(keys)


def _past(score: Tensor) -> Tensor:
    """(S, L), true where a key is not after the query; the queries are the last S positions."""
    rows, columns = score.shape[-2:]
    return torch.ones(rows, columns, dtype=torch.bool, device=score.device).tril(columns - rows)


def _itself(pairs: Tensor) -> Tensor:
    """(..., S, L) -> a view of the entries in which key and query are the same token, (..., S)."""
    return pairs.diagonal(pairs.shape[-1] - pairs.shape[-2], -2, -1)


def _diagonal(score: Tensor) -> Tensor:
    """(S, L), true where key and query are the same token."""
    rows, columns = score.shape[-2:]
    place = torch.arange(columns, device=score.device)
    return place == place[columns - rows :, None]
