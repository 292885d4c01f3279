"""gla: gated linear attention in the modern backbone; the mechanism is in `attention.py`."""

from __future__ import annotations

from holo_cli.models.gla.attention import GatedLinearAttention
from holo_cli.models.gla.config import Config
from holo_cli.models.recurrent import RecurrentModel


class Model(RecurrentModel):
    """Gated linear attention in every block."""

    config: Config

    def make_mixer(self, layer: int) -> GatedLinearAttention:
        return GatedLinearAttention(self.config)
