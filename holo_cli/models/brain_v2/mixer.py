"""The token mixer of a layer: a state space, an episodic memory or selective attention.

    out = ssm(u), memory(u) or attention(u)         layout = "interleaved", the default
    out = ssm(u) + memory(u) + attention(u)         "added": those that the layer has

All read the same u. The output of each is zero at first.

The matrices that read u, of state space and memory, lie one after another in one tensor, so that
decoding multiplies by all of them at once; each is still a parameter of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer
from holo_cli.layers.state import DataState
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.episodic import EpisodicMemory, EpisodicState
from holo_cli.models.brain_v2.selection import PackedCache
from holo_cli.models.brain_v2.ssm import Scalar, SSMState, make_state_space


@dataclass(frozen=True)
class BrainMixerState(DataState):
    """Decoding states of the parts of a layer."""

    ssm: SSMState | None
    memory: EpisodicState | None
    attention: PackedCache | None


class Joined(NamedTuple):
    """The matrices that read u as one, and their biases: z, x, b and c, dt of the state space;
    keys, gate, forget and write of the memory. The parameters are views of it."""

    weight: Tensor  # (sum of sizes, C)
    bias: Tensor
    sizes: list[int]

    def holds(self, mixer: BrainMixer) -> bool:
        """Whether the parameters are still views, not replaced since (by int8 weights, say)."""
        first = mixer.readers()[0]
        return type(first) is nn.Linear and first.weight.data_ptr() == self.weight.data_ptr()


class BrainMixer(Mixer):
    """The parts of layer 0, 1, ..."""

    takes_extras: ClassVar[bool] = True
    joined: Joined | None

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.ssm = make_state_space(config) if config.has_state_space(layer) else None
        self.memory = EpisodicMemory(config) if config.has_memory(layer) else None
        self.attention = SelectiveAttention(config) if config.has_attention(layer) else None
        self.joined = self._join()

    def readers(self) -> list[nn.Linear]:
        """The layers of state space and memory that read u, in order."""
        ssm, memory = self.ssm, self.memory
        found = [ssm.in_proj, ssm.bc_proj, ssm.dt_proj] if isinstance(ssm, Scalar) else []
        return found + ([memory.qkv, memory.gate, memory.gates_proj] if memory is not None else [])

    @torch.no_grad()
    def _join(self, *, by_columns: bool = False) -> Joined | None:
        """Move the parameters that read u into one tensor; nothing for a selective state space,
        which has no quick steps. `by_columns`: as the transpose of a matrix."""
        ssm, memory, layers = self.ssm, self.memory, self.readers()
        selective = ssm is not None and not isinstance(ssm, Scalar)
        if selective or not layers or not all(type(layer) is nn.Linear for layer in layers):
            return None
        biases = {2: ssm.dt_bias} if isinstance(ssm, Scalar) else {}
        if memory is not None:
            biases[len(layers) - 1] = memory.gates_bias
        weights = [layer.weight for layer in layers]
        rows = [len(weight) for weight in weights]
        whole = torch.cat([weight.data for weight in weights])
        if by_columns:
            whole = whole.t().contiguous().t()
        bias = whole.new_zeros(sum(rows))
        for n, (weight, part, of_bias) in enumerate(
            zip(weights, whole.split(rows), bias.split(rows), strict=True)
        ):
            weight.data = part
            if n in biases:
                of_bias.copy_(biases[n].data)
                biases[n].data = of_bias
        if ssm is not None:  # z and x
            rows[:1] = [rows[0] // 2] * 2
        return Joined(whole, bias, rows)

    def store_by_columns(self) -> None:
        if self.joined is not None and self.joined.weight.dtype is torch.float32:
            self.joined = self._join(by_columns=True)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        """Moved or cast, each parameter has a tensor of its own: join them again."""
        super()._apply(fn, recurse)
        self.joined = self._join()
        return self

    def finish_initialisation(self) -> None:
        """Each part is a mixer of its own and initialises itself."""

    def parts(self) -> list[Mixer]:
        """Those of the three that the layer has."""
        found: list[nn.Module | None] = [self.ssm, self.memory, self.attention]
        return [part for part in found if isinstance(part, Mixer)]

    def forward(self, u: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        aux: Aux = {}
        found = []
        if self.ssm is not None:
            found.append(self.ssm(u, extras)[0])
        if self.memory is not None:
            found.append(self.memory(u)[0])
        if self.attention is not None:
            attended, aux = self.attention(u, extras)
            found.append(attended)
        return _sum(found), aux

    def step(
        self, u: Tensor, state: BrainMixerState, extras: Extras = NOTHING
    ) -> tuple[Tensor, BrainMixerState]:
        ssm, memory, attention = state.ssm, state.memory, state.attention
        found = []
        if self.ssm is not None and ssm is not None:
            y, ssm = self.ssm.step(u, ssm, extras)
            found.append(y)
        if self.memory is not None and memory is not None:
            y, memory = self.memory.step(u, memory)
            found.append(y)
        if self.attention is not None and attention is not None:
            y, attention = self.attention.step(u, attention, extras)
            found.append(y)
        return _sum(found), BrainMixerState(ssm, memory, attention)

    @property
    def mixed_lengths(self) -> bool:
        return all(part.mixed_lengths for part in self.parts())

    def step_obstacle(self) -> str | None:
        return next((reason for part in self.parts() if (reason := part.step_obstacle())), None)

    def init_state(self, batch: int) -> BrainMixerState:
        return BrainMixerState(
            self.ssm.init_state(batch) if self.ssm is not None else None,
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


def _sum(parts: list[Tensor]) -> Tensor:
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out
