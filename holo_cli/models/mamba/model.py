"""Mamba-2 and Mamba-3 in the modern backbone."""

from __future__ import annotations

from dataclasses import replace

from holo_cli.models.backbone import Backbone
from holo_cli.models.base import Description
from holo_cli.models.mamba.config import Config
from holo_cli.models.mamba.mixer import StateSpaceMixer
from holo_cli.models.mamba.version2 import Mamba2
from holo_cli.models.mamba.version3 import Mamba3


class Model(Backbone):
    """The backbone with a selective state space in every block."""

    config: Config

    def make_mixer(self, layer: int) -> StateSpaceMixer:
        return Mamba2(self.config) if self.config.version == 2 else Mamba3(self.config)

    def describe(self) -> Description:
        """Decoding works on the state alone, whatever the length: no chunks."""
        base = super().describe()
        mixers = [m for m in self.modules() if isinstance(m, StateSpaceMixer)]
        chunks = sum(m.flops(self.config.context) for m in mixers)
        recurrent = sum(m.decode_flops() for m in mixers)
        decode = base.decode_flops_per_token - chunks + recurrent
        return replace(base, decode_flops_per_token=decode)
