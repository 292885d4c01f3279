"""Complex numbers as pairs of real tensors, and the fixed rotation of each channel by position.

Real pairs instead of complex tensors: products of matrices, compilers and every device know them.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
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


def wide(dtype: torch.dtype) -> torch.dtype:
    """What memories are kept in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast: sums over thousands of tokens and FFTs are not for bfloat16."""
    return torch.autocast(x.device.type, enabled=False)


def rates(count: int, fraction: float) -> list[float]:
    """Radians per token: pi ((i + 1/2) / n)^2 for the first n = fraction * count, then 0.

    All rates of a head differ, over its plates too. A geometric series as attention has it, the
    same on every plate, would leave each channel of the value with one rate, and so with the same
    magnitude from every distance; with R rates a channel can prefer some distances to others.
    Squares are dense at slow rates, for far distances, and never repeat in step, as even spacing
    would after 2 n tokens.
    """
    rotated = round(count * fraction)
    return [math.pi * ((i + 0.5) / rotated) ** 2 if i < rotated else 0.0 for i in range(count)]


@lru_cache(maxsize=8)
def turns(
    rates: tuple[float, ...], start: int, length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(S, N) angles for N rates at the positions start .. start + S - 1, in [0, 2 pi).

    Worked out in float64 on the host, where far positions are still exact. All layers share it.
    """
    # outside inference mode: made while generating, it may serve a training step later
    with torch.inference_mode(False):
        position = torch.arange(start, start + length, dtype=torch.float64, device="cpu")
        rate = torch.tensor(rates, dtype=torch.float64, device="cpu")
        angle = torch.remainder(position[:, None] * rate, 2 * math.pi)
        return angle.to(dtype).to(device)
