"""The state space of a layer in its two forms, with projections, norm and gate.

    scalar     S_t = a_t S_{t-1} + b_t (dt_t x_t)^T,   a_t = exp(-dt_t A)      one A per head
    selective  h_t = a_t h_{t-1} + (dt_t x_t) b_t^T,   a_t = exp(-dt_t A)      A (C, N)
    y_t = S_t read by c_t + D x_t;   out = W_o [ RMSNorm(y) * silu(W_z u) ]

dt depends on the token: with a large one the state takes the token in and forgets the past, with a
small one it ignores the token. Unlike Mamba (Gu & Dao 2023), b and c, the keys and queries of the
state, are RMS-normalized and rotated by position, so that reading can depend on distance. Rotating
pairs of b and c equals a state of complex numbers that rotate as they decay (S4D, Gu et al. 2022).
The short convolution in front is the backbone's own (`conv`). Legend: B rows, T positions, C
width, H heads, P = C / H, N numbers of state per channel.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from holo_cli.layers import ssd
from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import Positions
from holo_cli.layers.precision import no_autocast, wide
from holo_cli.layers.rope import Rope
from holo_cli.layers.state import DataState
from holo_cli.models.brain_v2 import selective
from holo_cli.models.brain_v2.config import Config

# Initial D. With the usual 1 the token itself dominates a head's norm, and reading other tokens is
# learned several times more slowly.
SKIP = 0.1


class QuadraticRope(Rope):
    """Rotation of keys and queries, (B, T, K, N), by pi ((i + 1/2) / n)^2 radians per token.

    With the geometric series of rates that RoPE uses, nearby distances look almost alike, and a
    state has no softmax to sharpen the difference. Evenly spaced rates would separate them best,
    but all pairs realign after 4 n tokens; squares are dense at slow rates and never realign.
    """

    def rates(self, pair: Tensor) -> Tensor:
        return math.pi * ((pair + 0.5) / max(self.rotated, 1)) ** 2


def inverse_softplus(y: float) -> float:
    """x with log(1 + exp(x)) = y."""
    return math.log(math.expm1(y))


@dataclass(frozen=True)
class SSMState(DataState):
    """The state of each row: (B, N, H, P) scalar, (B, C, N) selective."""

    position: Positions
    state: Tensor


class StateSpace(Mixer):
    """What both forms share: W_z and W_x in one matrix, the skip D, norm, gate and W_o."""

    constant_state: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.in_proj = nn.Linear(width, 2 * width, bias=False)  # z, x
        self.in_proj.weight.splits = 2  # type: ignore[attr-defined]
        self.bc_proj = nn.Linear(width, 2 * config.state_size, bias=False)  # b, c
        self.bc_proj.weight.splits = 2  # type: ignore[attr-defined]
        self.rope = QuadraticRope(config.state_size, config.rope_base, config.rope_fraction)
        self.skip = nn.Parameter(torch.empty(width))  # D
        self.out = nn.Linear(width, width, bias=False)

    def finish_initialisation(self) -> None:
        nn.init.constant_(self.skip, SKIP)
        nn.init.zeros_(self.out.weight)

    @abstractmethod
    def run(self, u: Tensor, x: Tensor, state: SSMState | None) -> tuple[Tensor, Tensor]:
        """u and x (B, S, C), the state before them (None in training) -> y (B, S, C) and the state
        after them."""

    @abstractmethod
    def rates(self, u: Tensor) -> Tensor:
        """(B, S, C) -> -log a, (B, S, ...)."""

    @abstractmethod
    def state_shape(self) -> tuple[int, ...]:
        """Of one row's state."""

    def forward(self, u: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        return self._run(u, None, extras)[0], {}

    def step(self, u: Tensor, state: SSMState, extras: Extras = NOTHING) -> tuple[Tensor, SSMState]:
        out, last = self._run(u, state, extras)
        return out, SSMState(state.position + u.shape[1], last)

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int) -> SSMState:
        w = self.out.weight
        zero = torch.zeros(batch, *self.state_shape(), dtype=wide(w.dtype), device=w.device)
        return SSMState(0, zero)

    def keys_and_queries(self, u: Tensor, state: SSMState | None) -> tuple[Tensor, Tensor]:
        """(B, S, C), the positions after `state` -> b and c, (B, S, N), c divided by sqrt(N)."""
        bc = rms_norm(self.bc_proj(u).unflatten(2, (2, -1)))
        b, c = self.rope(bc, state.position if state is not None else 0).unbind(2)
        return b, c * self.config.state_size**-0.5

    def _run(self, u: Tensor, state: SSMState | None, extras: Extras) -> tuple[Tensor, Tensor]:
        z, x = self.in_proj(u).chunk(2, dim=-1)
        x = extras.values(x)
        y, last = self.run(u, x, state)
        y = torch.addcmul(y.to(x.dtype), x, self.skip.to(x.dtype))
        y = rms_norm(y.unflatten(2, (self.config.heads, -1))).flatten(2)
        return self.out(y * nn.functional.silu(z)), last


class Scalar(StateSpace):
    """One decay per head and token (`layers/ssd.py`)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        heads = config.heads
        self.dt_proj = nn.Linear(config.width, heads, bias=False)
        self.dt_proj.weight.no_muon = True  # type: ignore[attr-defined]
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.log_rate = nn.Parameter(torch.empty(heads))  # log A

    def finish_initialisation(self) -> None:
        """Steps in a geometric series from dt_max to dt_min over the heads, the same for every
        token; A = 1, so half-lives run from log 2 / dt_max to log 2 / dt_min."""
        super().finish_initialisation()
        config = self.config
        nn.init.zeros_(self.dt_proj.weight)
        nn.init.zeros_(self.log_rate)
        ratio = config.dt_min / config.dt_max
        with torch.no_grad():
            for head in range(config.heads):
                share = head / (config.heads - 1) if config.heads > 1 else 0.5
                self.dt_bias[head] = inverse_softplus(config.dt_max * ratio**share)

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.state_size, self.config.heads, self.config.head_width)

    def flops(self, length: float) -> float:
        """Per token: C B^T over half a chunk, its product with x, and the state twice."""
        config = self.config
        inside = min(length, ssd.CHUNK / 2)
        return (
            2.0 * (inside + 2 * config.state_size) * config.width + 2 * inside * config.state_size
        )

    def decode_flops(self, length: float) -> float:
        """Add to the state and read it."""
        return 5.0 * self.config.state_size * self.config.width

    def steps(self, u: Tensor) -> Tensor:
        """(B, S, C) -> dt (B, S, H), float32 at least."""
        # in bfloat16 a step of 0.001 would be lost beside the bias
        raw = self.dt_proj(u).to(wide(u.dtype)) + self.dt_bias.to(wide(u.dtype))
        return nn.functional.softplus(raw)

    def rates(self, u: Tensor) -> Tensor:
        return self.steps(u) * self.log_rate.exp()

    def run(self, u: Tensor, x: Tensor, state: SSMState | None) -> tuple[Tensor, Tensor]:
        config = self.config
        b, c = self.keys_and_queries(u, state)
        dt = self.steps(u)
        log_a = -dt * self.log_rate.exp()
        values = x.unflatten(2, (config.heads, -1)) * dt.to(x.dtype)[..., None]
        before = state.state if state is not None else None
        with no_autocast(u):
            if before is not None and x.shape[1] == 1:
                y, last = ssd.step(values, b, c, log_a, before)
            else:
                y, last = ssd.scan(values, b, c, log_a, before)
        return y.flatten(2), last


class Selective(StateSpace):
    """One decay per channel, state dimension and token (`selective.py`; Mamba, Gu & Dao 2023)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        size, width = config.state_size, config.width
        rank = max(1, width // 16)
        self.dt_down = nn.Linear(width, rank, bias=False)  # dt's projection, of low rank
        self.dt_up = nn.Linear(rank, width, bias=False)
        for part in (self.dt_down, self.dt_up):
            part.weight.no_muon = True  # type: ignore[attr-defined]
        self.dt_bias = nn.Parameter(torch.empty(width))
        # log A, (C, N / 2), shared by both numbers of a pair, so that a pair is a complex number;
        # one-dimensional, since weight decay applies to matrices
        self.log_rate = nn.Parameter(torch.empty(width * (size // 2)))

    def finish_initialisation(self) -> None:
        """A = 1 .. N / 2 in every channel; dt log-uniform in [dt_min, dt_max]."""
        super().finish_initialisation()
        config = self.config
        nn.init.zeros_(self.dt_up.weight)
        with torch.no_grad():
            numbers = torch.arange(1, config.state_size // 2 + 1, device=self.log_rate.device)
            self.log_rate.copy_(numbers.log().repeat(config.width))
            dt = torch.empty_like(self.dt_bias)
            dt.uniform_(math.log(config.dt_min), math.log(config.dt_max)).exp_()
            self.dt_bias.copy_(dt.expm1().log())

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.width, self.config.state_size)

    def flops(self, length: float) -> float:
        """0 beside the weights': reading the state is a product, but the decays, counted as
        weights, are elementwise, and the two cancel."""
        return 0.0

    def decode_flops(self, length: float) -> float:
        return 7.0 * self.config.width * self.config.state_size

    def steps(self, u: Tensor) -> Tensor:
        """(B, S, C) -> dt (B, S, C), float32 at least."""
        raw = self.dt_up(self.dt_down(u)).to(wide(u.dtype)) + self.dt_bias.to(wide(u.dtype))
        return nn.functional.softplus(raw)

    def rates(self, u: Tensor) -> Tensor:
        return self.steps(u)[..., None] * self.rate()

    def rate(self) -> Tensor:
        """A, (C, N)."""
        return self.log_rate.exp().view(self.config.width, -1).repeat(1, 2)

    def run(self, u: Tensor, x: Tensor, state: SSMState | None) -> tuple[Tensor, Tensor]:
        dt = self.steps(u)
        b, c = (t.to(dt.dtype) for t in self.keys_and_queries(u, state))
        before = state.state if state is not None else None
        with no_autocast(u):
            return selective.scan(dt, dt * x.to(dt.dtype), b, c, self.rate(), before)


def make_state_space(config: Config) -> StateSpace:
    """The form that the config names."""
    return Scalar(config) if config.ssm == "scalar" else Selective(config)
