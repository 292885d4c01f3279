"""The holographic memory: R plates per head in which the whole past is superposed.

    M_t^r = a_t M_{t-1}^r + b_t (k_t^r * v_t)         elementwise, complex; a_t, b_t in (0, 1)
    y_t   = (1/R) sum_r conj(q_t^r) * M_t^r

A key has magnitude 1 in every channel. A query equal to the key reads the value back, because
conj(k) k = 1; values stored under other keys add up with random phases. N items are read back with
cosine 1 / sqrt(1 + (N - 1) / R), so more plates mean more capacity.

Training and decoding are the same function over a different number of positions; the state is
(H, R, 2, f) numbers whatever the length. Legend: B rows, S positions, H heads, R plates, f complex
channels, e = C / H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import no_autocast, wide
from holo_cli.models.holographic.binding import Binding, make_binding
from holo_cli.models.holographic.chunk_scan import CHUNK, chunk_scan, decayed_sum
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.phasors import Pair, phasor


class Memory(nn.Module):
    """Stores values (B, S, H, e) and reads them; value and output projections are the mixer's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.binding: Binding = make_binding(config)
        self.plates, self.channels = config.plates, self.binding.channels
        self.gates_proj = nn.Linear(config.width, 2 * config.heads, bias=False)  # decay, input
        self.gates_proj.weight.no_muon = True  # type: ignore[attr-defined]
        self.gates_bias = nn.Parameter(torch.zeros(2 * config.heads))

    def finish_initialisation(self) -> None:
        """Half-lives in a geometric series over the heads, the same for every token."""
        nn.init.zeros_(self.gates_proj.weight)
        if self.config.tied_start:
            self.binding.tie()
        heads = self.config.heads
        lives = half_lives(self.config.half_life_min, self.config.half_life_max, heads)
        with torch.no_grad():
            for head, life in enumerate(lives):
                # the inverse of softplus
                self.gates_bias[head] = math.log(math.expm1(math.log(2) / life))
            self.gates_bias[heads:] = 0.0

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, C) -> log a < 0 and b in (0, 1), each (B, H, S)."""
        # the bias is added in float32: bfloat16 cannot resolve half-lives of thousands
        raw = self.gates_proj(x).to(wide(x.dtype)) + self.gates_bias.to(wide(x.dtype))
        decay, input_gate = raw.transpose(1, 2).chunk(2, dim=1)
        return -nn.functional.softplus(decay), input_gate.sigmoid()

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """x (B, T, C), v (B, T, H, e) -> readout of mean square 1, (B, T, H, e)."""
        return self._run(x, v, None)[0]

    def step(self, x: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the positions after `state`, which is (B, H, 2, R, f)."""
        return self._run(x, v, state)

    def init_state(self, batch: int) -> Tensor:
        w = self.gates_proj.weight
        size = (self.config.heads, 2, self.plates, self.channels)
        return torch.zeros(batch, *size, dtype=wide(w.dtype), device=w.device)

    def state_numbers(self) -> int:
        return self.config.heads * self.plates * 2 * self.channels

    def flops(self, length: float) -> float:
        """Products inside a chunk, half of each square, and phases at fixed frequencies."""
        return min(2 * length, CHUNK) * self.state_numbers() + self._phase_flops()

    def decode_flops(self) -> float:
        """Bind, decay and add, read: elementwise on the plates."""
        return 9.0 * self.state_numbers() + self._phase_flops()

    def _phase_flops(self) -> float:
        """Of a token: w . z for each channel of each plate, of its query and its key."""
        if self.config.phases == "learned":
            return 0.0
        return 2.0 * self.config.phase_coords * self.state_numbers()

    def _run(self, x: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        # a compiler fuses the plain form by itself, and a single position has nothing to fuse
        if torch.compiler.is_compiling() or x.shape[1] == 1:
            return self.plain(x, v, state)
        log_a, b = (gate.permute(1, 0, 2) for gate in self.gates(x))  # (H, B, S)
        qk, offset = self.binding.scan_inputs(x)
        v = v.permute(2, 3, 0, 1)
        return chunk_scan(qk, v, log_a, b, state, self.binding.transform, offset)

    def plain(self, x: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """`_run` in autograd's operations over the whole length."""
        q, k = self.binding.keys(x)
        log_a, b = self.gates(x)
        with no_autocast(x):
            value = self.binding.value(v)
            plates = store(k, Pair(value.re * b[..., None], value.im * b[..., None]), log_a, state)
            y = self.binding.inverse_value(read(q, plates))
            # the next call counts its positions from 0: rotate the plates back by as many
            rotation = phasor(self.binding.transform.angles(x.shape[1], 1, plates)[..., 0])
            last = rotation.conj_times(Pair(*plates[:, :, -1].unbind(3)))
        return rms_norm(y).to(v.dtype), torch.stack(last, dim=2)


def half_lives(shortest: float, longest: float, count: int) -> list[float]:
    """A geometric series from shortest to longest; a single one is their geometric mean."""
    if count == 1:
        return [math.sqrt(shortest * longest)]
    ratio = (longest / shortest) ** (1 / (count - 1))
    return [shortest * ratio**i for i in range(count)]


def store(k: Pair, v: Pair, log_a: Tensor, state: Tensor | None = None) -> Tensor:
    """Keys (B, H, S, R, f), values (B, H, S, f), log a (B, H, S), state (B, H, 2, R, f) or None
    -> the plates after each position, (B, H, S, R, 2, f)."""
    bound = torch.stack(k.times(Pair(v.re[..., None, :], v.im[..., None, :])), dim=-2)
    flat = bound.flatten(3).flatten(0, 1)  # (B H, S, E)
    before = None if state is None else state.transpose(2, 3).flatten(2).flatten(0, 1)
    return decayed_sum(log_a.flatten(0, 1), flat, before).view(bound.shape)


def read(q: Pair, plates: Tensor) -> Pair:
    """Queries (B, H, S, R, f), plates (B, H, S, R, 2, f) -> (B, H, S, f)."""
    y = q.conj_times(Pair(plates[..., 0, :], plates[..., 1, :]))
    return Pair(y.re.mean(-2), y.im.mean(-2))
