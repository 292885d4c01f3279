"""The spectrum of a head seen as a line, a plane or a volume, in which `hrr` binds.

torch.compile has no FFT and fails on complex numbers: to it a transform and its inverse are one
operator each, of real numbers, and each is the gradient of the other but for a factor per bin.

Legend: e numbers of a head seen as `shape`, f bins that a real FFT over it stores, `bins` in shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from holo_cli.layers.precision import no_autocast
from holo_cli.models.holographic.phasors import Pair, phase_rates

SMALL = 1e-3  # bins of less magnitude are scaled by 1 / SMALL, not to magnitude 1


def unit_magnitude(z: Pair) -> Pair:
    """z / max(|z|, SMALL), elementwise."""
    # under the root, not after it: the gradient of |z| at zero would be NaN
    scale = (z.re.square() + z.im.square()).clamp_min(SMALL**2).rsqrt()
    return Pair(z.re * scale, z.im * scale)


def spectrum(x: Tensor, shape: tuple[int, ...]) -> Pair:
    """(..., e) real -> (..., f): the real FFT over the last dimension seen as `shape`."""
    if torch.compiler.is_compiling():
        re, im = _forward_operator(x, list(shape))
        return Pair(re, im)
    return _spectrum(x, shape)


def _spectrum(x: Tensor, shape: Sequence[int]) -> Pair:
    axes = tuple(range(-len(shape), 0))
    with no_autocast(x):
        z = torch.fft.rfftn(x.unflatten(-1, shape), dim=axes, norm="ortho").flatten(axes[0])
    return Pair(z.real, z.imag)


def from_spectrum(z: Pair, shape: tuple[int, ...], bins: tuple[int, ...]) -> Tensor:
    """The inverse of `spectrum`."""
    if torch.compiler.is_compiling():
        x: Tensor = _inverse_operator(z.re, z.im, list(shape))
        return x
    return _from_spectrum(z, shape, bins)


def _from_spectrum(z: Pair, shape: Sequence[int], bins: Sequence[int]) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    with no_autocast(z.re):
        whole = torch.complex(z.re, z.im).unflatten(-1, bins)
        return torch.fft.irfftn(whole, s=shape, dim=axes, norm="ortho").flatten(axes[0])


def _bins(shape: Sequence[int]) -> list[int]:
    return [*shape[:-1], shape[-1] // 2 + 1]


def _stands_for(shape: Sequence[int], like: Tensor) -> Tensor:
    """How many bins of the whole spectrum a stored one stands for, (f,): 2, or 1 at both ends of
    the last axis, where the mirror image of a bin is stored too (or is the bin itself)."""
    last = torch.full((shape[-1] // 2 + 1,), 2.0, dtype=like.dtype, device=like.device)
    last[0] = 1
    if shape[-1] % 2 == 0:
        last[-1] = 1
    return last.expand(_bins(shape)).flatten()


@torch.library.custom_op("holo::spectrum", mutates_args=())
def _forward_operator(x: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
    z = _spectrum(x, shape)
    return z.re.contiguous(), z.im.contiguous()


@_forward_operator.register_fake
def _forward_shape(x: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
    out = x.new_empty(*x.shape[:-1], math.prod(_bins(shape)))
    return out, torch.empty_like(out)


@torch.library.custom_op("holo::from_spectrum", mutates_args=())
def _inverse_operator(re: Tensor, im: Tensor, shape: list[int]) -> Tensor:
    return _from_spectrum(Pair(re, im), shape, _bins(shape)).contiguous()


@_inverse_operator.register_fake
def _inverse_shape(re: Tensor, im: Tensor, shape: list[int]) -> Tensor:
    return re.new_empty(*re.shape[:-1], math.prod(shape))


def _keep_shape(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.shape = inputs[-1]


def _forward_gradient(ctx: Any, d_re: Tensor, d_im: Tensor) -> tuple[Tensor, None]:
    weight = _stands_for(ctx.shape, d_re)
    return _inverse_operator(d_re / weight, d_im / weight, ctx.shape), None


def _inverse_gradient(ctx: Any, d_x: Tensor) -> tuple[Tensor, Tensor, None]:
    re, im = _forward_operator(d_x, ctx.shape)
    weight = _stands_for(ctx.shape, d_x)
    return re * weight, im * weight, None


_forward_operator.register_autograd(_forward_gradient, setup_context=_keep_shape)
_inverse_operator.register_autograd(_inverse_gradient, setup_context=_keep_shape)


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
    every = phase_rates(plates * len(chosen), fraction)
    found: list[float] = []
    for r in range(plates):
        rate = dict(zip(chosen, every[r * len(chosen) :], strict=False))
        found += [rate.get(k, 0.0) - rate.get(mirror[k], 0.0) for k in bins]
    return tuple(found)
