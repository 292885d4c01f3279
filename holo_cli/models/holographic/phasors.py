"""Complex numbers as pairs of real tensors, and the fixed rotation of each channel by position.

Real pairs instead of complex tensors: matrix products, compilers and every device support them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Pair(NamedTuple):
    """re + i im, two tensors of one shape."""

    re: Tensor
    im: Tensor

    def times(self, other: Pair) -> Pair:
        """self * other."""
        return Pair(
            torch.addcmul(self.re * other.re, self.im, other.im, value=-1.0),
            torch.addcmul(self.re * other.im, self.im, other.re),
        )

    def conj_times(self, other: Pair) -> Pair:
        """conj(self) * other."""
        return Pair(
            torch.addcmul(self.re * other.re, self.im, other.im),
            torch.addcmul(self.re * other.im, self.im, other.re, value=-1.0),
        )


def phasor(phase: Tensor) -> Pair:
    """e^{i phase}, elementwise."""
    return Pair(phase.cos(), phase.sin())


def phase_rates(count: int, fraction: float) -> list[float]:
    """Radians per token: pi ((i + 1/2) / n)^2 for the first n = fraction * count, then 0.

    Unlike RoPE (Su et al. 2021), whose rates form a geometric series shared by all heads, all rates
    of a head differ, over its plates too. One rate for a channel on all plates would give it the
    same magnitude at every distance; with R rates a channel can prefer some distances to others.
    Squares are dense at slow rates, for long distances, and never all realign, as evenly spaced
    rates would after 2 n tokens.
    """
    rotated = round(count * fraction)
    return [math.pi * ((i + 0.5) / rotated) ** 2 if i < rotated else 0.0 for i in range(count)]


@lru_cache(maxsize=8)
def rotation_angles(
    rates: tuple[float, ...], start: int, length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(S, N) angles for N rates at the positions start .. start + S - 1, in [0, 2 pi).

    Computed in float64 on the host, where far positions are still exact. All layers share it.
    """
    # outside inference mode: angles cached while generating may serve a training step later
    with torch.inference_mode(False):
        position = torch.arange(start, start + length, dtype=torch.float64, device="cpu")
        rate = torch.tensor(rates, dtype=torch.float64, device="cpu")
        angle = torch.remainder(position[:, None] * rate, 2 * math.pi)
        return angle.to(dtype).to(device)
