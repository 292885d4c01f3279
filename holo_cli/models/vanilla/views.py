"""vanilla's page of its own: the attention weights, in all recipes.

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
    from holo_cli.models.vanilla.llama import LlamaBlock

PAGES = {"attention": "which earlier tokens each token looks at"}
LIVE = {"attention": ()}


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> softmax weights (H, T, T) of each layer; O(T^2) memory per layer."""
    from holo_cli.models.vanilla.attention import Attention
    from holo_cli.models.vanilla.classic import ClassicBlock
    from holo_cli.models.vanilla.llama import LlamaBlock

    parts = [m for m in model.modules() if isinstance(m, Attention | ClassicBlock | LlamaBlock)]
    with watched(parts) as calls:
        model.hidden(tokens[None])
    layers = [
        part.weights(x) if isinstance(part, Attention) else textbook_weights(part, x)
        for part, (x, _) in zip(parts, calls, strict=True)
    ]
    return Weights(
        layers=[weights[0] for weights in layers],
        names=layer_names(len(layers))[1:],
        what="Softmax attention: each token spreads a weight of 1 over itself and the tokens "
        "before it, and takes that mixture of their values.",
    )


def textbook_weights(block: ClassicBlock | LlamaBlock, x: Tensor) -> Tensor:
    """A block's input (B, T, C) -> its attention weights (B, H, T, T) in float32 at least."""
    import torch

    q, k, _ = block.project(x, 0)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # llama: fewer heads of keys
    wide = torch.promote_types(q.dtype, torch.float32)
    score = q.to(wide) @ k.to(wide).transpose(2, 3) * q.shape[3] ** -0.5
    past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    return score.masked_fill(~past, float("-inf")).softmax(-1)
