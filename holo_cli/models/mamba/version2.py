"""Mamba-2 (Dao & Gu 2024, arXiv 2405.21060): a state space with one decay per head.

    h_t = exp(-dt_t A) h_{t-1} + dt_t B_t x_t^T             (N, P) per head; A > 0 per head
    y_t = h_t^T C_t + D x_t;   out = W_out norm(y * silu(z))

B and C are shared by all heads. Training computes it in chunks as products of matrices
(`layers/ssd.py`), decoding by the recurrence. Legend as in `mixer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holo_cli.layers import ssd
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import wide
from holo_cli.layers.state import DataState
from holo_cli.models.mamba.config import Config
from holo_cli.models.mamba.mixer import StateSpaceMixer

LARGEST_RATE = 16.0  # A is drawn from [1, LARGEST_RATE], as in the paper's code


@dataclass(frozen=True)
class Mamba2State(DataState):
    """h of each row, (B, N, H, P), float32 at least."""

    state: Tensor


class Mamba2(StateSpaceMixer):
    """Scalar decay per head, gate and norm before the output."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, controls=config.heads)
        self.a_log = nn.Parameter(torch.empty(config.heads))  # log A

    def finish_initialisation(self) -> None:
        super().finish_initialisation()
        with torch.no_grad():
            self.a_log.uniform_(1.0, LARGEST_RATE).log_()

    def mix(
        self, x: Tensor, bc: Tensor, controls: Tensor, state: Mamba2State | None
    ) -> tuple[Tensor, Mamba2State]:
        b, c = bc.chunk(2, dim=-1)
        dt = self.step_sizes(controls)
        log_a = -dt * self.a_log.exp()
        values = x * dt.to(x.dtype)[..., None]
        if state is not None and x.shape[1] == 1:
            y, last = ssd.step(values, b, c, log_a, state.state)
        else:
            y, last = ssd.scan(values, b, c, log_a, None if state is None else state.state)
        return torch.addcmul(y, x, self.skip.to(x.dtype)[:, None]), Mamba2State(last)

    def gated(self, y: Tensor, z: Tensor) -> Tensor:
        return rms_norm(y * nn.functional.silu(z))

    def init_state(self, batch: int) -> Mamba2State:
        config, w = self.config, self.out.weight
        shape = (batch, config.state_size, config.heads, config.head_width)
        return Mamba2State(torch.zeros(shape, dtype=wide(w.dtype), device=w.device))

    def flops(self, length: float) -> float:
        """Per token: C B^T over half a chunk, its product with x, and the state twice."""
        config, inside = self.config, min(length, ssd.CHUNK / 2)
        size = config.state_size
        return 2.0 * (inside + 2 * size) * config.inner + 2.0 * inside * size

    def decode_flops(self, length: float) -> float:
        return 5.0 * self.config.state_size * self.config.inner
