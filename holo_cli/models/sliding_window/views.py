"""The attention page of a sliding-window model: its weights, recomputed from each mixer's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.models.figures import caught
from holo_cli.models.views import Weights
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel

PAGES = {"attention": "which earlier tokens each token looks at"}
LIVE = {"attention": ()}


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> softmax weights (H, T, T) of each layer; O(T^2) memory per layer."""
    from holo_cli.models.sliding_window.attention import WindowAttention

    found = caught(model, tokens, WindowAttention)
    window, sinks = found[0][1].window, found[0][1].sinks
    return Weights(
        layers=[mixer.weights(x)[0] for _, mixer, x in found],
        names=[name for name, _, _ in found],
        what=f"Softmax attention over a window: each token spreads a weight of 1 over the last "
        f"{counted(window, 'token')}, itself included, and the first {sinks} of the text.",
    )
