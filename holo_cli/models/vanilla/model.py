"""vanilla: the plain GPT that every other model is compared with.

Its modern recipe, on tokens (B, T):

    x = norm(embedding(tokens))                       `models/backbone.py`
    x = x + attention(norm(x))                        `attention.py`, once per block
    x = x + W_down relu(W_up norm(x))^2               `layers/mlp.py`, once per block
    logits = soft_cap(norm(x) E^T)                    `layers/head.py`

`recipe = "classic"` is the textbook GPT of `classic.py`, and `recipe = "llama"` the block of
`llama.py`; neither is on the backbone.
"""

from __future__ import annotations

from torch import Tensor

from holo_cli.models.backbone import Backbone, BackboneState
from holo_cli.models.vanilla import decoding
from holo_cli.models.vanilla.attention import Attention
from holo_cli.models.vanilla.classic import Classic
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.llama import Llama


class Modern(Backbone):
    """Softmax attention with QK-norm and rotary positions in every block of the backbone."""

    config: Config
    quick_steps = True  # False: every step as `Backbone` makes it

    def make_mixer(self, layer: int) -> Attention:
        return Attention(self.config)

    def step_stream(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, BackboneState]:
        if self.quick_steps and decoding.fits(self, tokens, state):
            return decoding.step_hidden(self, tokens, state)
        return super().step_stream(tokens, state)


def Model(config: Config) -> Modern | Classic | Llama:
    """The model of a config, by its recipe."""
    if config.recipe == "classic":
        return Classic(config)
    return Llama(config) if config.recipe == "llama" else Modern(config)
