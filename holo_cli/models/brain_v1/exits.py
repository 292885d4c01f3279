"""Early exit: every layer can predict through the shared norm and head, and easy tokens stop early.

Training (LayerSkip, Elhoushi et al. 2024): a layer's prediction is its hidden state through the
final norm and head. In each forward pass one earlier layer, drawn at random, adds its own
cross-entropy, weighted more the deeper it is: over steps a loss for every layer at the cost of one.
Inside the model the target of a position is the next token of the same sequence, so the last
position has none. Whole layers are skipped at random, deeper ones more often.

A layer's confidence is read off its prediction, or predicted without it (`exit_gates.py`).

Exit: after a layer a token whose confidence reaches the threshold keeps its hidden state. The
layers above still compute keys and values from that state for later tokens, and nothing else.

Legend: B rows, T positions, C width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from holo_cli.layers.cross_entropy import chunked_cross_entropy
from holo_cli.layers.head import Head
from holo_cli.layers.norm import rms_norm
from holo_cli.models.brain_v1.config import Config

NO_TARGET = -100


def confidence(logits: Tensor, kind: str) -> Tensor:
    """(..., V) logits -> (...) in [0, 1].

    `top1` is the largest probability, `margin` its lead over the second, `entropy` is
    1 - H(p) / ln V: 1 where one token has everything, 0 where all are equal.
    """
    p = logits.softmax(-1)
    if kind == "top1":
        return p.amax(-1)
    if kind == "margin":
        first, second = p.topk(2, dim=-1).values.unbind(-1)
        return first - second
    spread = -torch.special.xlogy(p, p).sum(-1)
    return 1 - spread / math.log(logits.shape[-1])


def may_exit_after(config: Config, layer: int) -> bool:
    """Whether tokens can exit after a layer, 0 .. layers - 1; after the last all have."""
    done = layer + 1
    return done < config.layers and done >= config.exit_from and done % config.exit_every == 0


def exit_layers(config: Config) -> list[int]:
    """The layers, 0 .. layers - 2, after which tokens can exit."""
    return [layer for layer in range(config.layers) if may_exit_after(config, layer)]


def exit_weight(layers: list[int], layer: int, how: str = "deeper") -> float:
    """Weight of a layer's loss, with mean 1 over `layers`: rises with depth, or is `even`."""
    if how == "even":
        return 1.0
    return (layer + 1) * len(layers) / sum(n + 1 for n in layers)


def exit_loss(x: Tensor, tokens: Tensor, head: Head) -> Tensor:
    """Mean nats of the next tokens by a layer's stream x (B, T, C), a scalar; tokens (B, T)."""
    target = tokens.roll(-1, dims=1)
    target[:, -1] = NO_TARGET
    flat = rms_norm(x).flatten(0, 1)
    total = chunked_cross_entropy(
        flat, head.weight, target.flatten(), head.cap, flat.dtype, NO_TARGET
    )
    return total / max(1, target.numel() - target.shape[0])


def keep_probability(config: Config, layer: int) -> float:
    """Probability that a layer is not skipped in training: 1 - p (2^(l / (L - 1)) - 1) with
    p = `layer_dropout`, 1 for the first layer and decreasing with depth."""
    if config.layers == 1:
        return 1.0
    return 1 - config.layer_dropout * (2 ** (layer / (config.layers - 1)) - 1)
