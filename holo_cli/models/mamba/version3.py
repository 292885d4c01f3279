"""Mamba-3 (Lahoti et al. 2026, arXiv 2603.15569), one input and one output per head (SISO).

    h_t = alpha_t h_{t-1} + beta_t B_{t-1} x_{t-1}^T + gamma_t B_t x_t^T       (N, P) per head
    y_t = h_t^T C_t + D x_t;   out = W_out (y * silu(z))

    alpha = exp(-dt A),  beta = (1 - l) dt alpha,  gamma = l dt          exponential-trapezoidal
    dt = softplus(W_dt u + bias),  A = max(softplus(W_A u), FLOOR),  l = sigmoid(W_l u)
    B = rotate(norm(W_B u) g_B + bias_B),  C the same                    g per number, bias per head
    rotate: pair i rotates by sum over s <= t of dt_s pi tanh(W_angle u_s)_i

Rotating B and C by angles summed over time equals a state of complex numbers that rotate as they
decay. A step reads two inputs, so training sums them into one that is known at t:

    h_t = g_t + gamma_t B_t x_t^T
    g_t = alpha_t g_{t-1} + (alpha_t gamma_{t-1} + beta_t) B_{t-1} x_{t-1}^T

g is a plain scan of the inputs shifted by one (`layers/ssd.py`), and the token's own input is added
outside it; nothing of a later token enters, and nothing is divided by a decay. B and C differ from
head to head, so heads are rows of the scan. Legend as in `mixer.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holo_cli.layers import ssd
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import wide
from holo_cli.layers.state import DataState
from holo_cli.models.mamba.config import Config
from holo_cli.models.mamba.mixer import StateSpaceMixer

FLOOR = 1e-4  # smallest A


@dataclass(frozen=True)
class Mamba3State(DataState):
    """Of each row, float32 at least: h (B, H, N, P), the last B and x, and the angles so far."""

    state: Tensor
    b: Tensor  # (B, H, N), rotated
    x: Tensor  # (B, H, P)
    angle: Tensor  # (B, H, R), in [0, 2 pi)


class Mamba3(StateSpaceMixer):
    """Rotating state, trapezoidal input, normalized B and C with biases."""

    def __init__(self, config: Config) -> None:
        # step sizes, decays, trapezoid shares, angles
        super().__init__(config, controls=3 * config.heads + config.angles)
        heads, size = config.heads, config.state_size
        # one-dimensional: vectors are exempt from weight decay and from Muon
        self.bc_gain = nn.Parameter(torch.empty(2 * size))
        self.bc_bias = nn.Parameter(torch.empty(2 * heads * size))

    def finish_initialisation(self) -> None:
        super().finish_initialisation()
        nn.init.ones_(self.bc_gain)
        nn.init.ones_(self.bc_bias)

    def mix(
        self, x: Tensor, bc: Tensor, controls: Tensor, state: Mamba3State | None
    ) -> tuple[Tensor, Mamba3State]:
        config = self.config
        heads = config.heads
        full = wide(controls.dtype)
        raw = controls.to(full).split([heads, heads, heads, config.angles], dim=-1)
        dt = self.step_sizes(raw[0])  # (B, S, H), as the next ones
        log_alpha = -dt * nn.functional.softplus(raw[1]).clamp_min(FLOOR)
        share = raw[2].sigmoid()
        rotation = dt[..., None] * (math.pi * raw[3].tanh())[:, :, None]  # (B, S, H, R)
        angle = rotation.cumsum(1)
        if state is None:
            before = self._start(x, full)
        else:
            before = state
            angle = angle + state.angle[:, None]
        b, c = self._rotated_bc(bc, angle)  # (B, S, H, N)

        gamma = share * dt
        # the first position's `before.state` is h, which has its gamma already
        past = nn.functional.pad(gamma[:, :-1], (0, 0, 1, 0)) + (1 - share) * dt
        weight = (log_alpha.exp() * past).to(x.dtype)
        values = weight[..., None] * _shifted(x, before.x)
        y, last = self._scan(values, _shifted(b, before.b), c, log_alpha, before.state)
        own = gamma * torch.linalg.vecdot(b, c).to(full) + self.skip.to(full)
        y = torch.addcmul(y, x, own.to(x.dtype)[..., None])

        if state is None:  # training needs no state
            return y, before
        b_last, x_last = b[:, -1].to(full), x[:, -1].to(full)
        added = (gamma[:, -1, :, None] * b_last)[..., None] * x_last[:, :, None]
        last_angle = angle[:, -1].remainder(2 * math.pi)
        return y, Mamba3State(last + added, b_last, x_last, last_angle)

    def _rotated_bc(self, bc: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """bc (B, S, 2 N) and angles (B, S, H, R) -> rotated B and C, (B, S, H, N)."""
        config = self.config
        size = config.state_size
        gain, bias = self.bc_gain.to(bc.dtype), self.bc_bias.to(bc.dtype)
        bc = rms_norm(bc.unflatten(2, (2, size))) * gain.view(2, size)
        bc = bc[:, :, :, None] + bias.view(2, config.heads, size)  # (B, S, 2, H, N)
        fixed = size // 2 - config.angles
        angle = nn.functional.pad(angle, (0, fixed)) if fixed else angle
        cos, sin = angle.cos().to(bc.dtype)[:, :, None], angle.sin().to(bc.dtype)[:, :, None]
        first, second = bc.chunk(2, dim=-1)
        rotated = torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
        b, c = rotated.unbind(2)
        return b, c

    def _scan(
        self, values: Tensor, b: Tensor, c: Tensor, log_alpha: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`ssd.scan` with the heads as rows; state and result (B, H, N, P)."""

        def rows(t: Tensor) -> Tensor:
            return t.transpose(1, 2).flatten(0, 1)  # (B H, S, ...)

        given = (rows(values)[:, :, None], rows(b), rows(c), rows(log_alpha)[..., None])
        before = state.flatten(0, 1)[:, :, None]
        y, last = (ssd.step if values.shape[1] == 1 else ssd.scan)(*given, before)
        y = y.squeeze(2).unflatten(0, values.shape[::2][:2]).transpose(1, 2)
        return y, last.squeeze(2).unflatten(0, state.shape[:2])

    def gated(self, y: Tensor, z: Tensor) -> Tensor:
        return y * nn.functional.silu(z)

    def _start(self, like: Tensor, dtype: torch.dtype) -> Mamba3State:
        config = self.config
        shapes = [
            (config.state_size, config.head_width),
            (config.state_size,),
            (config.head_width,),
            (config.angles,),
        ]
        batch = like.shape[0]
        zeros = (
            torch.zeros(batch, config.heads, *shape, dtype=dtype, device=like.device)
            for shape in shapes
        )
        return Mamba3State(*zeros)

    def init_state(self, batch: int) -> Mamba3State:
        w = self.out.weight
        return self._start(w.new_empty(batch, 0), wide(w.dtype))

    def flops(self, length: float) -> float:
        """As Mamba-2's, but each head has its own product C B^T."""
        config, inside = self.config, min(length, ssd.CHUNK / 2)
        size = config.state_size
        return 2.0 * (inside + 2 * size) * config.inner + 2.0 * inside * size * config.heads

    def decode_flops(self, length: float) -> float:
        return 8.0 * self.config.state_size * self.config.inner


def _shifted(t: Tensor, first: Tensor) -> Tensor:
    """(B, S, H, n) -> the same one position later, with `first` (B, H, n) at the start."""
    return torch.cat((first.to(t.dtype)[:, None], t[:, :-1]), dim=1)
