"""gla: gated linear attention in the modern backbone; the mechanism is in `attention.py`."""

from __future__ import annotations

from holo_cli.models.backbone import Backbone
from holo_cli.models.gla.attention import GatedLinearAttention
from holo_cli.models.gla.config import Config


class Model(Backbone):
    """Gated linear attention in every block."""

    config: Config

    def make_mixer(self, layer: int) -> GatedLinearAttention:
        return GatedLinearAttention(self.config)
