"""The attention page of a sliding-window model: who looks at whom, made openly once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.models.views import Weights, layer_names, watched

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel

PAGES = {"attention": "which earlier tokens each token looks at"}


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> softmax weights (H, T, T) of each layer; O(T^2) memory per layer."""
    from holo_cli.models.sliding_window.attention import WindowAttention

    mixers = [m for m in model.modules() if isinstance(m, WindowAttention)]
    with watched(mixers) as calls:
        model.hidden(tokens[None])
    layers = [mixer.weights(x)[0] for mixer, (x, _) in zip(mixers, calls, strict=True)]
    window, sinks = mixers[0].window, mixers[0].sinks
    return Weights(
        layers=layers,
        names=layer_names(len(layers))[1:],
        what=f"Softmax attention over a window: each token spreads a weight of 1 over the last "
        f"{window} tokens, itself included, and the first {sinks} of the text.",
    )
