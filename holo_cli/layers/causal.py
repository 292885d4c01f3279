"""softmax(scale q k^T) v over the past, in the fastest form for each device.

Legend: B rows, H heads, S queries, L keys (the queries are the last S of the L positions), d per
head. PyTorch's own kernel is used everywhere but for training on CPUs in bfloat16, where its
backward is slower than its float32 one (10 ms against 1.5 ms at B12 H4 T64 d32, two cores): there,
blocks of queries attend to the keys before their end, each as a handful of batched products.
With more than one block the weights are computed again in the backward pass, so that memory
beyond the inputs is O(L x BLOCK) per row and head and never O(L^2).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.device import eager_cpu

BLOCK = 512  # queries at a time


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, seen: Tensor | None = None
) -> Tensor:
    """q (B, H, S, d), k (B, H, L, d), v (B, H, L, e) -> (B, H, S, e); scale None is d^-1/2.
    `seen` (B, 1, 1, L) bool for S = 1: the keys that each row has (`KVCache.seen`).

    L = S is training, S = 1 decoding; between them (a prompt continued in pieces) the mask is
    given explicitly.
    """
    length, total = q.shape[2], k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    training = torch.is_grad_enabled() and length == total
    if training and q.dtype == torch.bfloat16 and eager_cpu(q):
        return block_attention(q, k, v, scale)
    mask = seen
    if 1 < length < total:
        mask = torch.ones(length, total, dtype=torch.bool, device=q.device).tril(total - length)
    return nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=length == total and length > 1, scale=scale
    )


def block_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The same for S = L as products of blocks, any dtype; all shapes as in `causal_attention`."""
    flat = [x.flatten(0, 1).contiguous() for x in (q, k, v)]  # (N, L, d), N = B H
    if q.shape[2] <= BLOCK:
        y = torch.bmm(_weights(flat[0], flat[1], scale), flat[2])
    else:
        y = _BlockAttention.apply(*flat, scale)
    return y.unflatten(0, q.shape[:2])


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Weights of the last S of L positions over all of them, (N, S, d), (N, L, d) -> (N, S, L)."""
    mask = _future(q.shape[1], k.shape[1], q.dtype, q.device)
    return torch.softmax(torch.baddbmm(mask, q, k.mT, alpha=scale), dim=-1)


@lru_cache(maxsize=64)
def _future(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(S, L): -inf where a key comes after the query, else 0."""
    # outside inference mode: a cached tensor may be used by a later training step
    with torch.inference_mode(False):
        mask = torch.full((rows, columns), float("-inf"), dtype=dtype, device=device)
        return mask.triu_(columns - rows + 1)


class _BlockAttention(torch.autograd.Function):
    """Per block P = softmax(S), y = P v;  dP = dy v^T, dS = P (dP - rowsum(dP P))."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        y = torch.empty_like(v)
        for start in range(0, q.shape[1], BLOCK):
            end = min(start + BLOCK, q.shape[1])
            y[:, start:end] = torch.bmm(_weights(q[:, start:end], k[:, :end], scale), v[:, :end])
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dy = grads[0].contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, q.shape[1], BLOCK):
            end = min(start + BLOCK, q.shape[1])
            at = slice(start, end)
            p = _weights(q[:, at], k[:, :end], ctx.scale)
            dv[:, :end] += torch.bmm(p.mT, dy[:, at])
            dp = torch.bmm(dy[:, at], v[:, :end].mT)
            # the kernel behind softmax's own backward: one pass instead of three
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype).mul_(ctx.scale)
            dq[:, at] = torch.bmm(ds, k[:, :end])
            dk[:, :end] += torch.bmm(ds.mT, q[:, at])
        return dq, dk, dv, None
