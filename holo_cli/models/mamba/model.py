"""Mamba-2 and Mamba-3 in the modern backbone."""

from __future__ import annotations

from holo_cli.models.backbone import Backbone
from holo_cli.models.mamba.config import Config
from holo_cli.models.mamba.mixer import StateSpaceMixer
from holo_cli.models.mamba.version2 import Mamba2
from holo_cli.models.mamba.version3 import Mamba3


class Model(Backbone):
    """The backbone with a selective state space in every block."""

    config: Config

    def make_mixer(self, layer: int) -> StateSpaceMixer:
        return Mamba2(self.config) if self.config.version == 2 else Mamba3(self.config)
