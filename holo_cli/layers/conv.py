"""A short causal convolution per channel over a token and a few of its predecessors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CANON_TAPS = 4


class ShortConv(nn.Module):
    """y_t = silu(sum_k w_k x_{t-k}), k < taps; (B, T, C) -> (B, T, C).

    Initialised to pass x_t through. `linear` omits the silu: that is a Canon layer (Allen-Zhu
    2025, arXiv 2512.17351: x_t + sum_k u_k x_{t-k}), whose residual is the 1 that w_0 starts from.
    Shifted sums rather than `conv1d`: on CPUs a depthwise `conv1d` with its backward is several
    times slower at these widths.
    """

    def __init__(self, width: int, taps: int, *, linear: bool = False) -> None:
        super().__init__()
        self.taps, self.linear = taps, linear
        weight = torch.zeros(taps, width)
        weight[0] = 1.0
        self.weight = nn.Parameter(weight)  # (K, C): row k looks k positions back
        # a matrix by shape only: Muon would mix taps and channels
        self.weight.no_muon = True  # type: ignore[attr-defined]

    def init_state(self, batch: int) -> Tensor:
        """The last K - 1 inputs, (B, K - 1, C), zero before the start."""
        w = self.weight
        return torch.zeros(batch, self.taps - 1, w.shape[1], dtype=w.dtype, device=w.device)

    def forward(self, x: Tensor) -> Tensor:
        return self._mix(nn.functional.pad(x, (0, 0, self.taps - 1, 0)), x.shape[1])

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, S, C) next inputs, state (B, K - 1, C) -> y (B, S, C) and the next state."""
        window = torch.cat((state.to(x.dtype), x), dim=1)
        return self._mix(window, x.shape[1]), window[:, window.shape[1] - (self.taps - 1) :]

    def _mix(self, padded: Tensor, length: int) -> Tensor:
        weight = self.weight.to(padded.dtype)
        last = self.taps - 1
        y = padded[:, last : last + length] * weight[0]
        for k in range(1, self.taps):
            y = torch.addcmul(y, padded[:, last - k : last - k + length], weight[k])
        return y if self.linear else nn.functional.silu(y)
