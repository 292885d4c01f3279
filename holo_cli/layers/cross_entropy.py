"""Cross-entropy of many tokens without their (N, V) logits.

The forward pass computes the logits of a chunk of tokens, their loss and its gradients with respect
to hidden states and head matrix, and keeps only the gradients. That is exact, because the incoming
gradient is a scalar factor; it costs three products of the head's size, like the plain form, and
never holds more than a chunk of logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.layers.precision import wide

# Logits at a time: on CPUs few enough to stay in the cache for about ten passes.
CHUNK = {"cpu": 1 << 19, "default": 1 << 24}
# Gradients of logits collected for one product with the hidden states: adding each product to the
# (V, C) sum costs more than the product itself for chunks of few tokens.
GATHERED = 1 << 24


def chunk_rows(x: Tensor, vocab: int) -> int:
    """Tokens per chunk on the device of `x`."""
    return max(1, CHUNK.get(x.device.type, CHUNK["default"]) // vocab)


def chunked_cross_entropy(
    x: Tensor, weight: Tensor, target: Tensor, cap: float, dtype: torch.dtype, ignore: int
) -> Tensor:
    """Sum of -log softmax(soft_cap(x W^T))[target] in nats: a scalar, float32 at least.

    x (N, C), weight (V, C), target (N,) int64, `ignore` where a token is not scored; products in
    `dtype`.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(x, weight, target, cap, dtype, ignore)
    return total


class _ChunkedCrossEntropy(torch.autograd.Function):
    """With t = tanh(raw / cap), logits = cap t and p = softmax(logits), the gradient with respect
    to raw is (p - onehot(target)) (1 - t^2)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        cap: float,
        dtype: torch.dtype,
        ignore: int,
    ) -> Tensor:
        rows = chunk_rows(x, weight.shape[0])
        w = weight.to(dtype)
        full = wide(x.dtype)
        total = torch.zeros((), dtype=full, device=x.device)
        dx = torch.empty_like(x)
        dw = torch.zeros_like(weight)
        unscored = target == ignore
        some_unscored = bool(unscored.any())
        several = max(1, GATHERED // (rows * weight.shape[0])) * rows
        kept = x.new_empty((min(several, x.shape[0]), weight.shape[0]), dtype=dtype)
        for at in range(0, x.shape[0], rows):
            cut = slice(at, at + rows)
            xs, index = x[cut].to(dtype), target[cut].clamp_min(0)[:, None]
            t = (xs @ w.T).to(full)
            logits = t.div_(cap).tanh_() * cap if cap else t
            grad = torch.log_softmax(logits, dim=1)
            nats = grad.gather(1, index)
            grad.exp_().scatter_add_(1, index, torch.full_like(nats, -1.0))
            if cap:
                grad.addcmul_(grad, t.square_(), value=-1.0)
            if some_unscored:
                nats.masked_fill_(unscored[cut, None], 0.0)
                grad.masked_fill_(unscored[cut, None], 0.0)
            total -= nats.sum()
            place = at % several
            low = kept[place : place + xs.shape[0]].copy_(grad)
            dx[cut] = low @ w
            end = at + xs.shape[0]
            if end == x.shape[0] or end % several == 0:
                dw += kept[: end - (at - place)].T @ x[at - place : end].to(dtype)
        ctx.save_for_backward(dx, dw)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        (scale,) = grads
        return dx * scale.to(dx.dtype), dw * scale.to(dw.dtype), None, None, None, None
