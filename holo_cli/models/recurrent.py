"""Base of mixers with a linear recurrence: state, training and decoding form, costs.

A subclass computes the inputs of `layers/linear_recurrence.py` from the stream and maps what is
read to its output; the recurrence, its state and its cost are here. Legend: B rows, S positions,
C width, H heads, K and V widths of a key and a value.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.interfaces import Aux, Mixer
from holo_cli.layers.linear_recurrence import (
    chunk_flops,
    linear_recurrence,
    linear_recurrence_step,
    step_flops,
)
from holo_cli.layers.positions import Positions
from holo_cli.layers.rope import Rope
from holo_cli.layers.state import DataState


class RecurrenceInputs(NamedTuple):
    """Of `linear_recurrence`: each (B, H, S, ...), in float32 or float64."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    b: Tensor | None = None
    a: Tensor | None = None


@dataclass(frozen=True)
class MatrixState(DataState):
    """S of each row, (B, H, K, V), and the last input (B, 1, C) where the mixer has a token shift.
    `position` counts the tokens so far, for rotary positions."""

    position: Positions
    memory: Tensor
    last: Tensor | None = None


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 at least: the dtype of states, gates and logarithms."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gate_map(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias to the logits of gates, for AdamW: Muon would give all its
    directions the same size, and gates need few of them."""
    linear = nn.Linear(inputs, outputs, bias=False)
    linear.weight.no_muon = True  # type: ignore[attr-defined]
    return linear


class RecurrentMixer(Mixer):
    """A mixer around one linear recurrence per head; a subclass has `out`, its last matrix."""

    constant_state: ClassVar[bool] = True
    low_rank: ClassVar[int] = 0  # 0: no b; 1: b, and a = -k; 2: b and a
    shifted = False  # whether the mixer reads the input of the position before as well
    out: nn.Linear

    def __init__(self, config: BackboneConfig, key_width: int) -> None:
        super().__init__()
        self.heads, self.key_width = config.heads, key_width
        self.value_width = config.width // config.heads
        self.rope = Rope(key_width, config.rope_base, config.rope_fraction)

    @abstractmethod
    def mix(self, u: Tensor, state: MatrixState | None) -> tuple[Tensor, Tensor]:
        """u (B, S, C), the state before it or None -> what to add (B, S, C), and S after it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        return self.mix(x, None)[0], {}

    def step(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        out, memory = self.mix(x, state)
        last = x[:, -1:] if self.shifted else None
        return out, MatrixState(state.position + x.shape[1], memory, last)

    def recur(self, inputs: RecurrenceInputs, state: MatrixState | None) -> tuple[Tensor, Tensor]:
        """What each position reads, (B, H, S, V), and S after the last one."""
        memory = state.memory if state is not None else None
        with torch.autocast(inputs.q.device.type, enabled=False):
            if memory is not None and inputs.q.shape[2] == 1:
                return linear_recurrence_step(*inputs, memory)
            return linear_recurrence(*inputs, memory)

    def split(self, x: Tensor) -> Tensor:
        """(B, S, H d) -> (B, H, S, d) in full precision."""
        return full_precision(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def rotate(self, x: Tensor, state: MatrixState | None) -> Tensor:
        """Keys or queries (B, H, S, K) rotated by their positions, where the config asks for it."""
        start = state.position if state is not None else 0
        return self.rope(x.transpose(1, 2), start).transpose(1, 2)

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int) -> MatrixState:
        w = self.out.weight
        shape = (batch, self.heads, self.key_width, self.value_width)
        dtype = torch.promote_types(w.dtype, torch.float32)
        last = w.new_zeros(batch, 1, w.shape[0]) if self.shifted else None
        return MatrixState(0, torch.zeros(shape, dtype=dtype, device=w.device), last)

    def flops(self, length: float) -> float:
        return self.heads * chunk_flops(self.key_width, self.value_width, self.low_rank, length)

    def decode_flops(self, length: float) -> float:
        """The same at any length: by the recurrence, without chunks."""
        return self.heads * step_flops(self.key_width, self.value_width, self.low_rank)
