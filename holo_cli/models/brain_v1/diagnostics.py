"""What brain-v1's parts do on a text, read off one pass in which no token leaves early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from holo_cli.models.backbone import Backbone
from holo_cli.models.brain_v1.attention import causal_weights
from holo_cli.models.brain_v1.block import brain_blocks
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.models.views import watched


@contextmanager
def without_exits(model: Any) -> Iterator[None]:
    """Sets the threshold out of reach, so that all layers see all tokens."""
    before, model.exit_threshold = model.exit_threshold, 2.0
    try:
        yield
    finally:
        model.exit_threshold = before


def feeding(model: Backbone, tokens: Tensor) -> list[tuple[Columns | KWTA, Tensor]]:
    """Each layer's sparse MLP and its inputs for (B, T) tokens, (N, C)."""
    parts = [b.mlp for b in brain_blocks(model) if isinstance(b.mlp, Columns | KWTA)]
    with watched(parts) as calls, without_exits(model):
        model.hidden(tokens)
    return [(part, x.flatten(0, 1)) for part, (x, _) in zip(parts, calls, strict=True)]


def attention_weights(model: Backbone, tokens: Tensor) -> list[Tensor]:
    """(B, T) tokens -> the weights (B, H, T, T) of each layer, as evaluation uses them."""
    mixers = [b.mixer for b in brain_blocks(model)]
    with watched(mixers) as calls, without_exits(model):
        model.hidden(tokens)
    return [mixer.weights(x) for mixer, (x, _) in zip(mixers, calls, strict=True)]


def kept_weight(model: Backbone, tokens: Tensor) -> float:
    """What the attention weights that `attention_top` keeps add up to, mean over all rows."""
    mixers = [b.mixer for b in brain_blocks(model)]
    with watched(mixers) as calls, without_exits(model):
        model.hidden(tokens)
    shares = []
    for mixer, (x, _) in zip(mixers, calls, strict=True):
        q, k, _ = mixer._project(x, 0)
        kept = mixer.weights(x) > 0
        shares.append((causal_weights(q, k) * kept).sum(-1).mean())
    return torch.stack(shares).mean().item()
