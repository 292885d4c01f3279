"""Rotary position embedding (Su et al. 2021), over a share of each head's dimensions.

Dimension i is paired with i + d/2, and the first pairs of each head are the rotated ones; the rest
carries no position (their angle is zero). Tables grow on demand and are never in a checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rope(nn.Module):
    """Rotates (B, T, K, d), d even, by the positions start .. start + T - 1.

    The tables are float32 and cast to x's dtype after the angle is known, so positions stay exact
    in bfloat16.
    """

    def __init__(self, head_width: int, base: float, fraction: float, length: int) -> None:
        super().__init__()
        self.half = head_width // 2
        self.rotated = round(self.half * fraction)
        self.base = base
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self.cos: Tensor
        self.sin: Tensor
        self._grow(length)

    def _grow(self, length: int) -> None:
        device = self.cos.device
        # float64 on the host: MPS has no float64, and the tables are made once
        rate = torch.zeros(self.half, dtype=torch.float64, device="cpu")
        pair = torch.arange(self.rotated, dtype=torch.float64, device="cpu")
        rate[: self.rotated] = self.base ** (-pair / max(self.rotated, 1))
        position = torch.arange(length, dtype=torch.float64, device="cpu")
        angle = (position[:, None] * rate)[:, None]  # (T, 1, d/2)
        sin = angle.sin()
        # y = x cos + swap(x) sin, where swap exchanges the halves and the first one's sign is minus
        self.cos = torch.cat((angle.cos(), angle.cos()), dim=-1).float().to(device)
        self.sin = torch.cat((-sin, sin), dim=-1).float().to(device)

    def tables(self, start: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin, (T, 1, d), in the dtype of `like`."""
        if start + length > self.cos.shape[0]:
            self._grow(max(start + length, 2 * self.cos.shape[0]))
        cut = slice(start, start + length)
        return self.cos[cut].to(like.dtype), self.sin[cut].to(like.dtype)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x: (B, T, K, d) -> the same shape, rotated."""
        if self.rotated == 0:
            return x
        cos, sin = self.tables(start, x.shape[1], x)
        return torch.addcmul(x * cos, x.roll(self.half, dims=-1), sin)
