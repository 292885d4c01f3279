"""gated-deltanet: the gated delta rule in the modern backbone; the mechanism is in `delta.py`."""

from __future__ import annotations

from holo_cli.models.backbone import Backbone
from holo_cli.models.gated_deltanet.config import Config
from holo_cli.models.gated_deltanet.delta import ChannelGates, GatedDelta, HeadGates


class Model(Backbone):
    """The gated delta rule in every block, with the gates that the config names."""

    config: Config

    def make_mixer(self, layer: int) -> GatedDelta:
        kind = ChannelGates if self.config.gates == "gdn2" else HeadGates
        return kind(self.config)
