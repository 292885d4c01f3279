"""vanilla: the plain GPT that every other model is held against.

`Model(config)` is the modern recipe (the backbone with attention in every block) or, for
`recipe = "classic"`, the textbook one of `classic.py`.
"""

from __future__ import annotations

from holo_cli.layers.attention import Attention
from holo_cli.models.backbone import Backbone
from holo_cli.models.vanilla.classic import Classic
from holo_cli.models.vanilla.config import Config


class Modern(Backbone):
    """Softmax attention with QK-norm and rotary positions in the modern backbone."""

    config: Config

    def make_mixer(self, layer: int) -> Attention:
        return Attention(self.config)


def Model(config: Config) -> Modern | Classic:
    """The model of a config, by its recipe."""
    return Classic(config) if config.recipe == "classic" else Modern(config)
