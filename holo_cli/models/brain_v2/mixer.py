"""The token mixer of a layer: a state space, and by the config also memory and attention.

    out = ssm(u) + memory(u) + attention(u)

In parallel, all reading the same u. The output of each is zero at first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer
from holo_cli.layers.state import DataState
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.episodic import EpisodicMemory, EpisodicState
from holo_cli.models.brain_v2.selection import PackedCache
from holo_cli.models.brain_v2.ssm import SSMState, make_state_space


@dataclass(frozen=True)
class BrainMixerState(DataState):
    """Decoding states of the parts of a layer."""

    ssm: SSMState
    memory: EpisodicState | None
    attention: PackedCache | None


class BrainMixer(Mixer):
    """The parts of layer 0, 1, ..."""

    takes_extras: ClassVar[bool] = True

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.ssm = make_state_space(config)
        self.memory = EpisodicMemory(config) if config.has_memory(layer) else None
        self.attention = SelectiveAttention(config) if config.has_attention(layer) else None

    def finish_initialisation(self) -> None:
        """Each part is a mixer of its own and initialises itself."""

    def parts(self) -> list[Mixer]:
        """Those of the three that the layer has."""
        found: list[nn.Module | None] = [self.ssm, self.memory, self.attention]
        return [part for part in found if isinstance(part, Mixer)]

    def forward(self, u: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        out, aux = self.ssm(u, extras)
        if self.memory is not None:
            out = out + self.memory(u)[0]
        if self.attention is not None:
            attended, aux = self.attention(u, extras)
            out = out + attended
        return out, aux

    def step(
        self, u: Tensor, state: BrainMixerState, extras: Extras = NOTHING
    ) -> tuple[Tensor, BrainMixerState]:
        out, ssm = self.ssm.step(u, state.ssm, extras)
        memory, attention = state.memory, state.attention
        if self.memory is not None and memory is not None:
            y, memory = self.memory.step(u, memory)
            out = out + y
        if self.attention is not None and attention is not None:
            y, attention = self.attention.step(u, attention, extras)
            out = out + y
        return out, BrainMixerState(ssm, memory, attention)

    @property
    def mixed_lengths(self) -> bool:
        return all(part.mixed_lengths for part in self.parts())

    def init_state(self, batch: int) -> BrainMixerState:
        return BrainMixerState(
            self.ssm.init_state(batch),
            self.memory.init_state(batch) if self.memory is not None else None,
            self.attention.init_state(batch) if self.attention is not None else None,
        )

    def state_bytes(self, length: int) -> int:
        return sum(part.state_bytes(length) for part in self.parts())

    def active_parameters(self) -> int:
        return sum(part.active_parameters() for part in self.parts())

    def flops(self, length: float) -> float:
        return sum(part.flops(length) for part in self.parts())

    def decode_flops(self, length: float) -> float:
        return sum(part.decode_flops(length) for part in self.parts())

    def disable(self) -> None:
        for part in self.parts():
            part.disable()
