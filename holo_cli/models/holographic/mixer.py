"""The token mixer of a holographic layer: projections and gates around the memory.

    v = W_v x;   y = RMSNorm(memory(x, v));   out = W_o [ y * silu(W_g x) ]

with two options. `blend`: y = (1 - g) RMSNorm(attention) + g y, where attention reads the same
values, and g per head and token is in [0.05, 0.9], so that neither is ever off. `topology`: the
output gate also depends on how crowded the past is around a token (`topology.py`). Norms are per
head. Legend: B rows, S positions, C width, H heads, e = C / H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.gain import QueryGain
from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer
from holo_cli.layers.joined_weights import JoinedWeights
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import Positions
from holo_cli.layers.precision import wide
from holo_cli.layers.rope import Rope
from holo_cli.layers.state import DataState
from holo_cli.models.holographic.binding import positions_last
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.fftconv import FFTConv
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.topology import FEATURES, TopologyState, init_topology, topology

GATE_MIN, GATE_MAX = 0.05, 0.9  # g in a blend
GATE_BIAS = -2.0  # at the start: g = 0.15


@dataclass(frozen=True)
class HoloState(DataState):
    """Decoding state of one layer."""

    position: Positions
    memory: Tensor  # the plates (B, H, 2, R, f), or the filter's modes (B, H, e, 2 M)
    cache: KVCache | None = None  # with `blend`: keys and values of the past
    past: TopologyState | None = None  # with `topology`


class Blend(nn.Module):
    """Attention over the mixer's values, and the gate between it and the memory."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.qk = nn.Linear(config.width, 2 * config.width, bias=False)
        self.qk.weight.splits = 2  # type: ignore[attr-defined]
        self.gain = QueryGain(config.heads) if config.query_gain else None
        self.rope = Rope(config.head_width, config.rope_base, config.rope_fraction)
        self.share = nn.Linear(config.width, config.heads, bias=False)
        self.share.weight.no_muon = True  # type: ignore[attr-defined]
        self.share_bias = nn.Parameter(torch.empty(config.heads))

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.share.weight)
        nn.init.constant_(self.share_bias, GATE_BIAS)

    def attend(self, x: Tensor, v: Tensor, cache: KVCache | None) -> tuple[Tensor, KVCache | None]:
        """x (B, S, C), v (B, S, H, e) -> (B, S, H, e) and the cache with these positions."""
        start = cache.length if cache is not None else 0
        qk = self.qk(x).view(*x.shape[:2], 2 * self.heads, -1)
        q, k = self.rope(rms_norm(qk), start).transpose(1, 2).chunk(2, dim=1)
        v = v.transpose(1, 2)
        q = q if self.gain is None else self.gain(q)
        if cache is not None:
            cache = cache.append(k, v)
            k, v = cache.views()
        seen = None if cache is None else cache.seen()
        return causal_attention(q, k, v, seen=seen).transpose(1, 2), cache

    def gate(self, x: Tensor) -> Tensor:
        """(B, S, C) -> g (B, S, H, 1)."""
        # a sigmoid scaled to the bounds: a clamped one would have no gradient beyond them
        raw = self.share(x) + self.share_bias.to(x.dtype)
        return (GATE_MIN + (GATE_MAX - GATE_MIN) * raw.sigmoid())[..., None]


class Holographic(Mixer):
    """Memory or long filter (`config.mixer`) with its gates and projections."""

    takes_extras: ClassVar[bool] = True
    joined: JoinedWeights | None = None  # of `readers`, for decoding

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.value = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.memory = FFTConv(config) if config.mixer == "fftconv" else Memory(config)
        self.blend = Blend(config) if config.blend else None
        self.topology = (
            nn.Linear(config.heads * FEATURES, width, bias=False) if config.topology else None
        )
        if self.topology is not None:
            self.topology.weight.no_muon = True  # type: ignore[attr-defined]

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.out.weight)
        self.memory.finish_initialisation()
        if self.blend is not None:
            self.blend.finish_initialisation()
        if self.topology is not None:
            nn.init.zeros_(self.topology.weight)

    def forward(self, x: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        v = extras.values(self.values(x))
        past = self._init_topology(x.shape[0]) if self.topology is not None else None
        return self._finish(x, v, self.memory(x, v), None, past)[0], {}

    def step(
        self, x: Tensor, state: HoloState, extras: Extras = NOTHING
    ) -> tuple[Tensor, HoloState]:
        v = extras.values(self.values(x))
        y, memory = self.memory.step(x, v, state.memory)
        out, cache, past = self._finish(x, v, y, state.cache, state.past)
        return out, HoloState(state.position + x.shape[1], memory, cache, past)

    def readers(self) -> list[nn.Linear]:
        """The layers that read x where a `Memory` mixes tokens; none otherwise."""
        memory = self.memory
        if not isinstance(memory, Memory):
            return []
        return [memory.binding.qk_proj, self.value, self.gate, memory.gates_proj]

    def store_by_columns(self) -> None:
        """Make one matrix of those that read x, stored by columns; they become views of it."""
        if readers := self.readers():
            self.joined = JoinedWeights.of(readers) or self.joined

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        """Moved or cast, each parameter has a tensor of its own."""
        self.joined = None
        return super()._apply(fn, recurse)

    @property
    def mixed_lengths(self) -> bool:
        return self.topology is None  # its counts are of all rows

    def step_obstacle(self) -> str | None:
        return None if self.topology is None else "model.topology counts the tokens of the text"

    def init_state(self, batch: int) -> HoloState:
        return HoloState(
            0,
            self.memory.init_state(batch),
            KVCache() if self.blend is not None else None,
            self._init_topology(batch) if self.topology is not None else None,
        )

    def state_bytes(self, length: int) -> int:
        config, dtype = self.config, self.out.weight.dtype
        numbers = self.memory.state_numbers()
        if self.topology is not None:
            numbers += config.width * (1 + config.topology_window)
        cache = 2 * length * config.width * dtype.itemsize if self.blend is not None else 0
        return numbers * wide(dtype).itemsize + cache

    def flops(self, length: float) -> float:
        return self.memory.flops(length) + self._attention_flops(length)

    def decode_flops(self, length: float) -> float:
        """As `flops`, of one token decoded from a state."""
        return self.memory.decode_flops() + self._attention_flops(length)

    def _attention_flops(self, length: float) -> float:
        return 4.0 * length * self.config.width if self.blend is not None else 0.0

    def values(self, x: Tensor) -> Tensor:
        """(B, S, C) -> v (B, S, H, e)."""
        return (
            positions_last(self.value, x).unflatten(0, (self.config.heads, -1)).permute(2, 3, 0, 1)
        )

    def _init_topology(self, batch: int) -> TopologyState:
        config = self.config
        like = self.value.weight
        return init_topology(batch, config.heads, config.head_width, config.topology_window, like)

    def _finish(
        self, x: Tensor, v: Tensor, y: Tensor, cache: KVCache | None, past: TopologyState | None
    ) -> tuple[Tensor, KVCache | None, TopologyState | None]:
        """Readout of the memory (B, S, H, e) -> output (B, S, C)."""
        if self.blend is not None:
            attended, cache = self.blend.attend(x, v, cache)
            y = torch.lerp(rms_norm(attended), y, self.blend.gate(x).to(y.dtype))
        gate = self.gate(x)
        if self.topology is not None and past is not None:
            features, past = topology(v, past)
            gate = gate + self.topology(features.flatten(2).to(x.dtype))
        return self.out(y.flatten(2) * nn.functional.silu(gate)), cache, past
