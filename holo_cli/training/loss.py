"""The training loss: cross-entropy of a whole batch, without its (B, T, V) logits.

The arithmetic is `layers/cross_entropy.py`'s; this file says which targets count.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from holo_cli.data.batches import IGNORE
from holo_cli.layers.cross_entropy import (
    chunk_rows,
    chunked_cross_entropy,
    chunked_penalized_cross_entropy,
)
from holo_cli.layers.head import Head
from holo_cli.layers.unlikelihood import Unlikelihood

__all__ = ["PenalizedLoss", "chunk_rows", "cross_entropy", "nats_per_token", "penalized_loss"]


class PenalizedLoss(NamedTuple):
    """Means over the scored tokens, scalars; only `objective` has gradients."""

    objective: Tensor  # cross_entropy + weight x unlikelihood
    cross_entropy: Tensor
    unlikelihood: Tensor


def cross_entropy(
    x: Tensor, head: Head, target: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Mean nats per scored token; x (B, T, C), target (B, T) int64 with IGNORE for none.

    `dtype` is that of the products (None: x's own); sums are float32 at least.
    """
    n = (target != IGNORE).sum()
    flat = x.reshape(-1, x.shape[-1])
    total = chunked_cross_entropy(
        flat, head.weight, target.reshape(-1), head.cap, dtype or x.dtype, IGNORE
    )
    return total / n.clamp_min(1)


def penalized_loss(
    x: Tensor, head: Head, target: Tensor, penalty: Unlikelihood, dtype: torch.dtype | None = None
) -> PenalizedLoss:
    """Like `cross_entropy`, with a penalty on tokens that repeat."""
    n = (target != IGNORE).sum().clamp_min(1)
    total, extra = chunked_penalized_cross_entropy(
        x.reshape(-1, x.shape[-1]),
        head.weight,
        target.reshape(-1),
        head.cap,
        dtype or x.dtype,
        IGNORE,
        penalty,
    )
    plain = total.detach() - penalty.weight * extra
    return PenalizedLoss(total / n, plain / n, extra / n)


@torch.no_grad()
def nats_per_token(x: Tensor, head: Head, target: Tensor) -> Tensor:
    """-log p of each target, (B, T) float32, zero where not scored; chunked like the loss."""
    flat, goal = x.reshape(-1, x.shape[-1]), target.reshape(-1)
    rows = chunk_rows(x, head.weight.shape[0])
    out = torch.empty(goal.shape, dtype=torch.float32, device=x.device)
    for at in range(0, flat.shape[0], rows):
        logits = head(flat[at : at + rows])
        out[at : at + rows] = torch.nn.functional.cross_entropy(
            logits, goal[at : at + rows], reduction="none", ignore_index=IGNORE
        )
    return out.view(target.shape)
