"""Rotary position embedding (Su et al. 2021), over a share of each head's dimensions.

Dimension i is paired with i + d/2, and the first pairs of each head are the rotated ones; the rest
carries no position (their angle is zero). Tables are computed in float64 on the host, where angles
of far positions are still exact, and cast once per device and dtype; no checkpoint holds them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.positions import Positions, following, most


class Rope(nn.Module):
    """Rotates (B, T, K, d), d even, by the positions start .. start + T - 1."""

    def __init__(self, head_width: int, base: float, fraction: float) -> None:
        super().__init__()
        self.pairs = head_width // 2
        self.rotated = round(self.pairs * fraction)
        self.base = base
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def rates(self, pair: Tensor) -> Tensor:
        """Radians per position of the rotated pairs, numbered 0, 1, ..."""
        return self.base ** (-pair / max(self.rotated, 1))

    def _compute(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        # outside inference mode: a table cached while generating may serve a training step later
        with torch.inference_mode(False):
            pair = torch.arange(self.rotated, dtype=torch.float64, device="cpu")
            rate = torch.zeros(self.pairs, dtype=torch.float64, device="cpu")
            rate[: self.rotated] = self.rates(pair)
            position = torch.arange(length, dtype=torch.float64, device="cpu")
            angle = (position[:, None] * rate)[:, None]  # (T, 1, d/2)
            cos, sin = angle.cos(), angle.sin()
            # y = x cos + swap(x) sin, where swap exchanges the halves and the first sin is negative
            cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
            return cos.to(like.dtype).to(like.device), sin.to(like.dtype).to(like.device)

    def tables(self, start: Positions, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin, (T, 1, d), with the dtype and device of `like`; (B, T, 1, d) where
        rows start at different positions."""
        key = (like.device, like.dtype)
        end = most(start) + length
        if key not in self._tables or self._tables[key][0].shape[0] < end:
            self._tables[key] = self._compute(max(64, 1 << (end - 1).bit_length()), like)
        cos, sin = self._tables[key]
        if not isinstance(start, int):
            at = following(start, length, like.device)
            return cos[at], sin[at]
        return cos[start:end], sin[start:end]

    def forward(self, x: Tensor, start: Positions = 0) -> Tensor:
        """x: (B, T, K, d) -> the same shape, rotated."""
        if self.rotated == 0:
            return x
        cos, sin = self.tables(start, x.shape[1], x)
        return torch.addcmul(x * cos, x.roll(self.pairs, dims=-1), sin)
