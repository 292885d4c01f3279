"""Cross-entropy of many tokens without their (N, V) logits.

The forward pass computes the logits of a chunk of tokens, their loss and its gradients with respect
to hidden states and head matrix, and keeps only the gradients. That is exact, because the incoming
gradient is a scalar factor; it costs three products of the head's size, like the plain form, and
never holds more than a chunk of logits. A penalty on the same probabilities shares these products.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from holo_cli.layers.precision import wide

# Logits at a time: on CPUs few enough to stay in the cache for about ten passes, but of no fewer
# tokens than a product needs to run at full speed.
CHUNK = {"cpu": 1 << 19, "default": 1 << 24}
LEAST_ROWS = 256
# Gradients of logits collected for one product with the hidden states: adding each product to the
# (V, C) sum costs more than the product itself for chunks of few tokens.
GATHERED = 1 << 24


def chunk_rows(x: Tensor, vocab: int) -> int:
    """Tokens per chunk on the device of `x`."""
    return max(LEAST_ROWS, CHUNK.get(x.device.type, CHUNK["default"]) // vocab)


class Penalty(Protocol):
    """A second loss on the same predictions, computed with each chunk of the first."""

    weight: float
    columns: int  # of the largest table that a chunk of rows needs beside its logits

    def __call__(self, rows: slice, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the batch and their log probabilities (R, V) -> the loss of each row (R, 1), and
        its gradient with respect to the logits (R, V), neither multiplied by `weight`."""
        ...


def chunked_cross_entropy(
    x: Tensor, weight: Tensor, target: Tensor, cap: float, dtype: torch.dtype, ignore: int
) -> Tensor:
    """Sum of -log softmax(soft_cap(x W^T))[target] in nats: a scalar, float32 at least.

    x (N, C), weight (V, C), target (N,) int64, `ignore` where a token is not scored; products in
    `dtype`.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(x, weight, target, cap, dtype, ignore, None)[0]
    return total


def chunked_penalized_cross_entropy(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    cap: float,
    dtype: torch.dtype,
    ignore: int,
    penalty: Penalty,
) -> tuple[Tensor, Tensor]:
    """Like `chunked_cross_entropy`, plus `penalty.weight` times the sum of the penalty: two
    scalars, that total and the penalty's sum alone. Only the total has gradients."""
    total, extra = _ChunkedCrossEntropy.apply(x, weight, target, cap, dtype, ignore, penalty)
    return total, extra


class _ChunkedCrossEntropy(torch.autograd.Function):
    """With t = tanh(raw / cap), logits = cap t and p = softmax(logits), the gradient with respect
    to raw is (p - onehot(target)) (1 - t^2), and likewise (penalty's gradient) (1 - t^2)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        cap: float,
        dtype: torch.dtype,
        ignore: int,
        penalty: Penalty | None,
    ) -> tuple[Tensor, Tensor]:
        columns = weight.shape[0] if penalty is None else max(weight.shape[0], penalty.columns)
        rows = chunk_rows(x, columns)
        w = weight.to(dtype)
        full = wide(x.dtype)
        total = torch.zeros((), dtype=full, device=x.device)
        extra = torch.zeros_like(total)
        dx = torch.empty_like(x)
        dw = torch.zeros_like(weight)
        unscored = target == ignore
        some_unscored = torch.compiler.is_compiling() or bool(unscored.any())
        several = max(1, GATHERED // (rows * weight.shape[0])) * rows
        kept = x.new_empty((min(several, x.shape[0]), weight.shape[0]), dtype=dtype)
        for at in range(0, x.shape[0], rows):
            cut = slice(at, at + rows)
            xs, index = x[cut].to(dtype), target[cut].clamp_min(0)[:, None]
            t = (xs @ w.T).to(full)
            logits = t.div_(cap).tanh_() * cap if cap else t
            grad = torch.log_softmax(logits, dim=1)
            nats = grad.gather(1, index)
            added = None if penalty is None else penalty(cut, grad)
            grad.exp_().scatter_add_(1, index, torch.full_like(nats, -1.0))
            if penalty is not None and added is not None:
                grad.add_(added[1], alpha=penalty.weight)
            if cap:
                grad.addcmul_(grad, t.square_(), value=-1.0)
            if some_unscored:
                nats.masked_fill_(unscored[cut, None], 0.0)
                grad.masked_fill_(unscored[cut, None], 0.0)
            total -= nats.sum()
            if added is not None:
                extra += added[0].masked_fill(unscored[cut, None], 0.0).sum()
            place = at % several
            low = kept[place : place + xs.shape[0]].copy_(grad)
            dx[cut] = low @ w
            end = at + xs.shape[0]
            if end == x.shape[0] or end % several == 0:
                dw += kept[: end - (at - place)].T @ x[at - place : end].to(dtype)
        ctx.save_for_backward(dx, dw)
        ctx.mark_non_differentiable(extra)
        return (total if penalty is None else total + penalty.weight * extra), extra

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        scale = grads[0]
        return dx * scale.to(dx.dtype), dw * scale.to(dw.dtype), *(None,) * 5
