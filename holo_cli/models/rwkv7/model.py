"""rwkv7: the time mixing of RWKV-7 in the modern backbone; the mechanism is in `time_mix.py`."""

from __future__ import annotations

from holo_cli.models.backbone import Backbone
from holo_cli.models.rwkv7.config import Config
from holo_cli.models.rwkv7.time_mix import TimeMix


class Model(Backbone):
    """RWKV-7's time mixing in every block."""

    config: Config

    def make_mixer(self, layer: int) -> TimeMix:
        return TimeMix(self.config, layer)
