"""vanilla's page of its own: the attention weights, in both recipes.

Training's kernels never store them, so they are recomputed from the recorded input of each block.
Legend: T tokens, C width, H heads, d = C / H.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.models.views import Weights, layer_names, watched

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.vanilla.classic import ClassicBlock

PAGES = {"attention": "which earlier tokens each token looks at"}
LIVE = {"attention": ()}


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> softmax weights (H, T, T) of each layer; O(T^2) memory per layer."""
    from holo_cli.models.vanilla.attention import Attention
    from holo_cli.models.vanilla.classic import ClassicBlock

    parts = [m for m in model.modules() if isinstance(m, Attention | ClassicBlock)]
    with watched(parts) as calls:
        model.hidden(tokens[None])
    layers = [
        part.weights(x) if isinstance(part, Attention) else classic_weights(part, x)
        for part, (x, _) in zip(parts, calls, strict=True)
    ]
    return Weights(
        layers=[weights[0] for weights in layers],
        names=layer_names(len(layers))[1:],
        what="Softmax attention: each token spreads a weight of 1 over itself and the tokens "
        "before it, and takes that mixture of their values.",
    )


def classic_weights(block: ClassicBlock, x: Tensor) -> Tensor:
    """A block's input (B, T, C) -> its attention weights (B, H, T, T) in float32 at least."""
    import torch

    batch, length, _ = x.shape
    qkv = block.qkv(block.norm1(x)).view(batch, length, 3, block.heads, -1)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
    wide = torch.promote_types(q.dtype, torch.float32)
    score = q.to(wide) @ k.to(wide).transpose(2, 3) * q.shape[3] ** -0.5
    past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    return score.masked_fill(~past, float("-inf")).softmax(-1)
