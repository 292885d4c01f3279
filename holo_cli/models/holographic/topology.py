"""Four features per head and token of how crowded the past is around it. Strictly causal.

With unit vectors z, the directions of the head's values:

    density       z_t . mean of z_0 .. z_{t-1}: the mean cosine to the past
    spread        1 - |mean of z_0 .. z_t|^2: 0 if all point one way, near 1 if in all directions
    connectivity  the share of the last w tokens that are near: mean sigmoid((cosine - 1/2) / 0.1)
    clustering    the mean cosine among the token's 4 nearest neighbours of the last w

State: a sum, a count and the last w vectors. Cosines are computed for w lags, never for all pairs,
and the pairs among the neighbours are read from the same table. Legend: B rows, S positions, H
heads, e = C / H, w the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from holo_cli.layers.precision import wide
from holo_cli.layers.state import DataState

FEATURES = 4
NEIGHBOURS = 4
NEAR, SOFTNESS = 0.5, 0.1  # of the sigmoid in `connectivity`
EPS = 1e-6


@dataclass(frozen=True)
class TopologyState(DataState):
    """Of the tokens so far: their number, sum (B, H, e), and the last w (B, H, w, e)."""

    count: int
    total: Tensor
    recent: Tensor


def init_topology(batch: int, heads: int, width: int, window: int, like: Tensor) -> TopologyState:
    """Before the first token; dtype (float32 at least) and device of `like`."""
    total = torch.zeros(batch, heads, width, dtype=wide(like.dtype), device=like.device)
    return TopologyState(0, total, total.new_zeros(batch, heads, window, width))


def topology(v: Tensor, past: TopologyState) -> tuple[Tensor, TopologyState]:
    """v (B, S, H, e) -> features (B, S, H, 4), float32 at least, and the state after them."""
    z = v.transpose(1, 2).to(past.total.dtype)
    z = z * (z.square().sum(-1, keepdim=True) + EPS).rsqrt()
    window, length = past.recent.shape[2], z.shape[2]
    count = past.count + torch.arange(length, device=z.device)  # tokens before each
    after = past.total[:, :, None] + z.cumsum(2)
    density = (z * (after - z)).sum(-1) / count.clamp_min(1)
    spread = 1 - after.square().sum(-1) / (count + 1).square()

    known = torch.cat((past.recent, z), dim=2)  # (B, H, w + S, e)
    cosine = lagged_cosines(known, window)
    now = cosine[:, :, window:]
    exists = torch.arange(1, window + 1, device=z.device) <= count[:, None]  # (S, w)
    near = torch.sigmoid((now - NEAR) / SOFTNESS) * exists
    connectivity = near.sum(-1) / count.clamp(1, window)
    clustering = _clustering(cosine, exists)
    features = torch.stack((density, spread, connectivity, clustering), dim=-1).transpose(1, 2)
    return features, TopologyState(past.count + length, after[:, :, -1], known[:, :, length:])


def lagged_cosines(known: Tensor, window: int) -> Tensor:
    """Unit vectors (B, H, L, e) -> (B, H, L, w): [l, j - 1] is z_l . z_{l-j}; 0 where l < j."""
    lags = []
    for j in range(1, window + 1):
        products = (known[:, :, j:] * known[:, :, :-j]).sum(-1)
        lags.append(torch.nn.functional.pad(products, (min(j, known.shape[2]), 0)))
    return torch.stack(lags, dim=-1)


def _clustering(cosine: Tensor, exists: Tensor) -> Tensor:
    """cosine (B, H, w + S, w), exists (S, w) -> mean cosine among the nearest, (B, H, S)."""
    length, window = exists.shape
    now = cosine[:, :, window:]
    nearest = now.detach().masked_fill(~exists, -torch.inf).topk(min(NEIGHBOURS, window)).indices
    lag = nearest.sort(-1).values  # (B, H, S, n): lag - 1, missing ones come last
    found = lag < exists.sum(-1)[:, None]
    own = torch.arange(window, window + length, device=cosine.device)[:, None]
    table = cosine.flatten(2)
    total = torch.zeros_like(now[..., 0])
    pairs = torch.zeros_like(total)
    for a in range(lag.shape[-1]):
        for b in range(a + 1, lag.shape[-1]):
            # the later of the two looks back on the other
            place = (own[:, 0] - lag[..., a] - 1) * window + (lag[..., b] - lag[..., a] - 1)
            both = found[..., b]
            total = total + table.gather(2, place) * both
            pairs = pairs + both
    return total / pairs.clamp_min(1)
