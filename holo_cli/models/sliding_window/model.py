"""Sliding-window attention with attention sinks in the modern backbone."""

from __future__ import annotations

from holo_cli.models.backbone import Backbone
from holo_cli.models.sliding_window.attention import WindowAttention
from holo_cli.models.sliding_window.config import Config


class Model(Backbone):
    """The backbone with attention over a window and sinks in every block."""

    config: Config

    def make_mixer(self, layer: int) -> WindowAttention:
        return WindowAttention(self.config)
