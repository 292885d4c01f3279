"""Causal attention over a window of W tokens and the first S tokens, in blocks.

    y_t = sum_s a_ts v_s,   a_t = softmax over the visible s of (q_t . k_s / sqrt(d))
    s is visible from t if s <= t and (t - s < W or s < S)

Queries are cut into blocks of L. A block is multiplied with the S sinks, with the ceil((W - 1) / L)
blocks before it and with itself, so work and memory grow as T (W + L + S) and not as T^2. A mask
inside each tile keeps the exact window; a sink that the window reaches already is counted once.

Legend: B rows, H heads, T positions, L positions of a block, M blocks, W window, S sinks, K keys of
a block, d width of a head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

SMALLEST, LARGEST = 32, 128  # positions of a block: smaller ones waste calls, larger ones work


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int) -> Tensor:
    """q, k and v (B, H, T, d) of whole texts -> (B, H, T, d)."""
    length = q.shape[2]
    size = min(LARGEST, max(SMALLEST, window))
    back = -(-(window - 1) // size)  # whole blocks before a block that its queries may see
    count = -(-length // size)
    extra = count * size - length
    first = (0, 0, back * size, extra)
    keys = _with_sinks(nn.functional.pad(k, first), k[:, :, :sinks], size, back)
    values = _with_sinks(nn.functional.pad(v, first), v[:, :, :sinks], size, back)
    queries = nn.functional.pad(q, (0, 0, 0, extra)) if extra else q
    queries = queries.unflatten(2, (count, size)) * q.shape[3] ** -0.5
    score = queries @ keys.mT  # (B, H, M, L, K)
    score = score + _mask(length, size, window, min(sinks, length), q.dtype, q.device)
    y = score.softmax(-1, dtype=q.dtype) @ values
    return y.flatten(2, 3)[:, :, :length]


def masked_attention(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int) -> Tensor:
    """The same through the full matrix of T x T scores: slow, and what the fast form must equal."""
    at = torch.arange(q.shape[2], device=q.device)
    score = q @ k.mT * q.shape[3] ** -0.5
    return score.masked_fill(~visible(at, at, window, sinks), float("-inf")).softmax(-1) @ v


def visible(query: Tensor, key: Tensor, window: int, sinks: int) -> Tensor:
    """Positions (..., L) of queries and (..., K) of keys -> (..., L, K) bool."""
    query, key = query[..., :, None], key[..., None, :]
    return (key <= query) & ((query - key < window) | (key < sinks))


def _with_sinks(padded: Tensor, sinks: Tensor, size: int, back: int) -> Tensor:
    """(B, H, back L + M L, d) and the sinks (B, H, S, d) -> what each block sees, (B, H, M, K, d):
    the sinks, the blocks before it, the block."""
    blocks = padded.unflatten(2, (-1, size))
    count = blocks.shape[2] - back
    parts = [blocks[:, :, shift : shift + count] for shift in range(back + 1)]
    if sinks.shape[2]:
        parts.insert(0, sinks[:, :, None].expand(-1, -1, count, -1, -1))
    return torch.cat(parts, dim=3)


@lru_cache(maxsize=32)
def _mask(
    length: int, size: int, window: int, sinks: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(M, L, K), 0 where a key of a block is visible and -inf where it is not."""
    # outside inference mode: a cached tensor may be used by a later training step
    with torch.inference_mode(False):
        start = torch.arange(0, length, size)[:, None]
        back = -(-(window - 1) // size) * size
        query = start + torch.arange(size)
        near = start + torch.arange(-back, size)
        allowed = visible(query, near, window, 0) & (near >= 0)[:, None]
        # as a sink only where the window does not reach it
        far = query[..., None] - torch.arange(sinks) >= window
        allowed = torch.cat((far, allowed), dim=2)
        mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, float("-inf"))
        return mask.to(device)
