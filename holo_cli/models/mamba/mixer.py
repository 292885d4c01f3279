"""What the mixers of Mamba-2 and Mamba-3 share: projections, convolution, skip and gate.

    z, x = W_in u;  B, C = W_bc u;  dt = softplus(W_dt u + bias)
    x, B, C = silu(conv([x, B, C]))                          with `inner_conv`
    y = state space(x, B, C, dt) + D x;   out = W_out gated(y, z)

`version2.py` and `version3.py` hold the state spaces. Legend: B rows, T positions, S positions of a
step, C width, D inner width, H heads, P = D / H, N numbers of state per channel, R rotating pairs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holo_cli.layers.conv import ShortConv
from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer, convolve
from holo_cli.layers.precision import no_autocast, wide
from holo_cli.models.mamba.config import Config


class StateSpaceMixer(Mixer):
    """A selective state space with its projections around it."""

    takes_extras: ClassVar[bool] = True
    constant_state: ClassVar[bool] = True

    def __init__(self, config: Config, controls: int) -> None:
        """`controls`: numbers per token that steer the recurrence, the H step sizes first."""
        super().__init__()
        self.config = config
        width, inner, size = config.width, config.inner, config.state_size
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)  # z, x
        self.in_proj.weight.splits = 2  # type: ignore[attr-defined]
        self.bc_proj = nn.Linear(width, 2 * size, bias=False)  # B, C
        self.bc_proj.weight.splits = 2  # type: ignore[attr-defined]
        self.control_proj = nn.Linear(width, controls, bias=False)
        self.control_proj.weight.no_muon = True  # type: ignore[attr-defined]
        self.dt_bias = nn.Parameter(torch.empty(config.heads))
        self.skip = nn.Parameter(torch.empty(config.heads))  # D
        self.conv_x = ShortConv(inner, config.taps) if config.taps else None
        self.conv_bc = ShortConv(2 * size, config.taps) if config.taps else None
        self.out = nn.Linear(inner, width, bias=False)

    def finish_initialisation(self) -> None:
        """Step sizes log-uniform in [dt_min, dt_max], D = `skip_start`, no output."""
        config = self.config
        nn.init.constant_(self.skip, config.skip_start)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            dt = torch.empty_like(self.dt_bias)
            dt.uniform_(math.log(config.dt_min), math.log(config.dt_max)).exp_()
            self.dt_bias.copy_(dt.expm1().log())  # the inverse of softplus

    @abstractmethod
    def mix(self, x: Tensor, bc: Tensor, controls: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x (B, S, H, P), bc (B, S, 2 N), controls (B, S, controls), the state before them (None
        in training) -> y (B, S, H, P) and the state after them."""

    @abstractmethod
    def gated(self, y: Tensor, z: Tensor) -> Tensor:
        """(B, S, D) each -> what the output projection reads."""

    def convolutions(self) -> list[ShortConv]:
        return [conv for conv in (self.conv_x, self.conv_bc) if conv is not None]

    def forward(self, u: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        return self._run(u, None, extras)[0], {}

    @property
    def mixed_lengths(self) -> bool:
        return True

    def step(self, u: Tensor, state: Any, extras: Extras = NOTHING) -> tuple[Tensor, Any]:
        return self._run(u, state, extras)

    def step_sizes(self, raw: Tensor) -> Tensor:
        """(B, S, H) -> dt, above 0, float32 at least."""
        # in bfloat16 a step of 0.001 would be lost beside the bias
        full = wide(raw.dtype)
        return nn.functional.softplus(raw.to(full) + self.dt_bias.to(full))

    def _run(self, u: Tensor, state: Any, extras: Extras) -> tuple[Tensor, Any]:
        z, x = self.in_proj(u).chunk(2, dim=-1)
        x = convolve(self.conv_x, x, extras.windows)
        bc = convolve(self.conv_bc, self.bc_proj(u), extras.windows)
        heads = x.unflatten(2, (self.config.heads, -1))
        controls = self.control_proj(u)
        with no_autocast(u):
            y, state = self.mix(heads, bc, controls, state)
        return self.out(self.gated(y.flatten(2), z)), state
