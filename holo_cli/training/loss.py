"""Cross-entropy of a whole batch without its (B, T, V) logits.

The logits of a chunk of tokens are made, turned into loss and gradient, and thrown away; only the
gradients with respect to hidden states and head matrix survive the forward pass. That is exact,
because the loss is linear in what comes back (its gradient is a scalar), costs three products of
the head's size like the plain form, and never holds more than `CHUNK` logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.data.batches import IGNORE
from holo_cli.layers.head import Head, soft_cap

CHUNK = 4_194_304  # logits at a time: 16 MB in float32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum over scored tokens of -log softmax(soft_cap(x W^T))[target], (N, C), (V, C), (N,)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, target: Tensor, cap: float, dtype: torch.dtype
    ) -> Tensor:
        rows = max(1, CHUNK // weight.shape[0])
        w = weight.to(dtype)
        total = torch.zeros(
            (), dtype=torch.float32 if x.dtype != torch.float64 else x.dtype, device=x.device
        )
        dx = torch.empty_like(x)
        dw = torch.zeros_like(weight)
        for at in range(0, x.shape[0], rows):
            xs = x[at : at + rows].to(dtype)
            ts = target[at : at + rows]
            scored = (ts != IGNORE)[:, None]
            index = ts.clamp_min(0)[:, None]
            raw = xs @ w.T
            logits = soft_cap(raw.to(total.dtype), cap)
            grad = torch.log_softmax(logits, dim=1)
            total -= (grad.gather(1, index) * scored).sum()
            grad = grad.exp_()
            grad.scatter_add_(1, index, torch.full_like(grad[:, :1], -1.0).expand(index.shape))
            if cap:
                grad *= 1 - (logits / cap) ** 2  # derivative of the cap
            grad = (grad * scored).to(dtype)
            dx[at : at + rows] = grad @ w
            dw.addmm_(grad.T, xs) if dw.dtype == dtype else dw.add_(grad.T @ xs)
        ctx.save_for_backward(dx, dw)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        (scale,) = grads
        return dx * scale.to(dx.dtype), dw * scale.to(dw.dtype), None, None, None


def cross_entropy(
    x: Tensor, head: Head, target: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Mean nats per scored token; x (B, T, C), target (B, T) int64 with IGNORE for none.

    `dtype` is that of the products (None: x's own); sums are float32 at least.
    """
    n = (target != IGNORE).sum()
    flat = x.reshape(-1, x.shape[-1])
    total = _ChunkedCrossEntropy.apply(
        flat, head.weight, target.reshape(-1), head.cap, dtype or x.dtype
    )
    mean: Tensor = total / n.clamp_min(1)
    return mean


@torch.no_grad()
def nats_per_token(x: Tensor, head: Head, target: Tensor) -> Tensor:
    """-log p of each target, (B, T) float32, zero where not scored; chunked like the loss."""
    flat, goal = x.reshape(-1, x.shape[-1]), target.reshape(-1)
    rows = max(1, CHUNK // head.weight.shape[0])
    out = torch.empty(goal.shape, dtype=torch.float32, device=x.device)
    for at in range(0, flat.shape[0], rows):
        logits = head(flat[at : at + rows])
        out[at : at + rows] = torch.nn.functional.cross_entropy(
            logits, goal[at : at + rows], reduction="none", ignore_index=IGNORE
        )
    return out.view(target.shape)
