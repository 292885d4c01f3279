"""y_t = a_t y_{t-1} + x_t along time, as products of matrices.

Within a chunk of c positions, with G the running sum of log a,

    y_t = sum_{s <= t} exp(G_t - G_s) x_s + exp(G_t) y_before

is one (c, c) by (c, E) product, and the chunks' ends obey the same recurrence, one level up: the
function calls itself on them. T positions cost O(T c E) in log_c T levels, and no position is
visited one by one. Unusual: differences are masked before exp, and nothing is ever divided by a
cumulative product, so decays as small as one likes are exact and no gradient is NaN.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

CHUNK = 64  # positions; a product of two such squares is still small beside the projections


def decayed_sum(log_a: Tensor, x: Tensor, state: Tensor | None = None) -> Tensor:
    """log_a (N, T) <= 0, x (N, T, E), state (N, E) before the first position -> y (N, T, E)."""
    rows, length, width = x.shape
    if length <= CHUNK:
        total = log_a.cumsum(1)
        return _inside(total, _weights(total), x, state)
    count = -(-length // CHUNK)
    if count * CHUNK != length:  # after the end: nothing comes in, nothing fades
        log_a = torch.nn.functional.pad(log_a, (0, count * CHUNK - length))
        x = torch.nn.functional.pad(x, (0, 0, 0, count * CHUNK - length))
    total = log_a.reshape(rows * count, CHUNK).cumsum(1)
    x = x.reshape(rows * count, CHUNK, width)
    weights = _weights(total)
    own = torch.bmm(weights[:, -1:], x).view(rows, count, width)  # what a chunk adds by its end
    ends = decayed_sum(total[:, -1].view(rows, count), own, state)
    first = torch.zeros_like(ends[:, :1]) if state is None else state[:, None]
    before = torch.cat((first, ends[:, :-1]), dim=1).view(rows * count, width)
    y = _inside(total, weights, x, before)
    return y.view(rows, count * CHUNK, width)[:, :length]


def _inside(total: Tensor, weights: Tensor, x: Tensor, before: Tensor | None) -> Tensor:
    """total (N, c), weights (N, c, c), x (N, c, E), before (N, E) -> (N, c, E)."""
    if before is None:
        return torch.bmm(weights, x)
    return torch.baddbmm(total.exp()[:, :, None] * before[:, None], weights, x)


def _weights(total: Tensor) -> Tensor:
    """G (N, c) -> exp(G_t - G_s) for s <= t, else 0; (N, c, c)."""
    difference = total[:, :, None] - total[:, None]
    future = _future(total.shape[1], total.device)
    return difference.masked_fill(future, float("-inf")).exp()


@lru_cache(maxsize=128)
def _future(length: int, device: torch.device) -> Tensor:
    """(c, c), True where s > t."""
    with torch.inference_mode(False):  # a training step may use what generating made
        return torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)
