"""The spectrum of a head seen as a line, a plane or a volume, in which `hrr` binds.

Legend: e numbers of a head seen as `shape`, f bins that a real FFT over it stores, `bins` in shape.
"""

from __future__ import annotations

import torch
from torch import Tensor

from holo_cli.layers.precision import no_autocast
from holo_cli.models.holographic.phasors import Pair, rates

SMALL = 1e-3  # bins of less magnitude are scaled by 1 / SMALL, not to magnitude 1


def unit(z: Pair) -> Pair:
    """z / max(|z|, SMALL), elementwise."""
    # under the root, not after it: the gradient of |z| at zero would be NaN
    scale = (z.re.square() + z.im.square()).clamp_min(SMALL**2).rsqrt()
    return Pair(z.re * scale, z.im * scale)


@torch.compiler.disable  # compilers have no FFT and fail on complex numbers
def spectrum(x: Tensor, shape: tuple[int, ...]) -> Pair:
    """(..., e) real -> (..., f): the real FFT over the last dimension seen as `shape`."""
    axes = tuple(range(-len(shape), 0))
    with no_autocast(x):
        z = torch.fft.rfftn(x.unflatten(-1, shape), dim=axes, norm="ortho").flatten(axes[0])
    return Pair(z.real, z.imag)


@torch.compiler.disable
def from_spectrum(z: Pair, shape: tuple[int, ...], bins: tuple[int, ...]) -> Tensor:
    """The inverse of `spectrum`."""
    axes = tuple(range(-len(shape), 0))
    with no_autocast(z.re):
        whole = torch.complex(z.re, z.im).unflatten(-1, bins)
        return torch.fft.irfftn(whole, s=shape, dim=axes, norm="ortho").flatten(axes[0])


def spectral_rates(shape: tuple[int, ...], plates: int, fraction: float) -> tuple[float, ...]:
    """Radians per token of each stored bin, plate by plate.

    A rotated spectrum is still that of a real signal if rate(-k) = -rate(k): zero where k is its
    own mirror image, and opposite signs where both of a pair are stored, which happens at both ends
    of the last axis.
    """
    *outer, last = shape
    grid = [range(length) for length in outer] + [range(last // 2 + 1)]
    bins: list[tuple[int, ...]] = [()]
    for axis in grid:
        bins = [(*k, i) for k in bins for i in axis]
    mirror = {k: tuple(-i % n for i, n in zip(k, shape, strict=True)) for k in bins}
    # one of each pair; a pair's other half is stored or implied
    chosen = [k for k in bins if k < mirror[k] or mirror[k] not in mirror]
    every = rates(plates * len(chosen), fraction)
    found: list[float] = []
    for r in range(plates):
        rate = dict(zip(chosen, every[r * len(chosen) :], strict=False))
        found += [rate.get(k, 0.0) - rate.get(mirror[k], 0.0) for k in bins]
    return tuple(found)
