"""ngt, the Newton gravity transformer: tokens are masses in a space they move through.

The backbone with gravity as its mixer. Its side stream holds the coordinates z (B, T, G, H d),
which each block's mixer moves and hands on (`mixer.py`, with the legend of the sizes).
"""

from __future__ import annotations

from torch import Tensor

from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone, BackboneState
from holo_cli.models.ngt import decoding
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.diagnostics import measures
from holo_cli.models.ngt.mixer import GravityMixer, InitialCoordinates


class Model(Backbone):
    """Gravity in the modern backbone."""

    config: Config
    quick_steps = True  # False: every step as `Backbone` makes it

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.initial_coordinates = InitialCoordinates(config)
        self.initial_coordinates.initialise()

    def make_mixer(self, layer: int) -> GravityMixer:
        return GravityMixer(self.config)

    def side_stream(self, tokens: Tensor, x: Tensor, state: BackboneState | None) -> Tensor:
        """The coordinates before the first layer."""
        z: Tensor = self.initial_coordinates(x)
        return z

    def step_stream(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, BackboneState]:
        if self.quick_steps and decoding.fits(self, tokens, state):
            x = rms_norm(self.embedding(tokens, state.last))
            z = self.side_stream(tokens, x, state)
            return decoding.step_hidden(self, tokens, state, x, z)
        return super().step_stream(tokens, state)

    def measures(self, tokens: Tensor) -> dict[str, float]:
        return measures(self, tokens)
