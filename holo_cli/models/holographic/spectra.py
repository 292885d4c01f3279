"""The spectrum of a head, in which `hrr` binds.

torch.compile has no FFT and fails on complex numbers: to it a transform and its inverse are one
operator each, of real numbers, and each is the gradient of the other but for a factor per bin.

Legend: e numbers of a head, f = e // 2 + 1 bins that a real FFT over it stores, R plates.
"""

from __future__ import annotations

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


def spectrum(x: Tensor) -> Pair:
    """(..., e) real -> (..., f): the real FFT over the last dimension."""
    if torch.compiler.is_compiling():
        re, im = _forward_operator(x)
        return Pair(re, im)
    return _spectrum(x)


def _spectrum(x: Tensor) -> Pair:
    with no_autocast(x):
        z = torch.fft.rfft(x, norm="ortho")
    return Pair(z.real, z.imag)


def from_spectrum(z: Pair, length: int) -> Tensor:
    """The inverse of `spectrum`: (..., f) -> (..., e), with e = `length`."""
    if torch.compiler.is_compiling():
        x: Tensor = _inverse_operator(z.re, z.im, length)
        return x
    return _from_spectrum(z, length)


def _from_spectrum(z: Pair, length: int) -> Tensor:
    with no_autocast(z.re):
        return torch.fft.irfft(torch.complex(z.re, z.im), n=length, norm="ortho")


def _stands_for(length: int, like: Tensor) -> Tensor:
    """How many bins of the whole spectrum a stored one stands for, (f,): 2, or 1 where it is its
    own mirror image, at 0 and, for even lengths, at the end."""
    count = torch.full((length // 2 + 1,), 2.0, dtype=like.dtype, device=like.device)
    count[0] = 1
    if length % 2 == 0:
        count[-1] = 1
    return count


@torch.library.custom_op("holo::spectrum", mutates_args=())
def _forward_operator(x: Tensor) -> tuple[Tensor, Tensor]:
    z = _spectrum(x)
    return z.re.contiguous(), z.im.contiguous()


@_forward_operator.register_fake
def _forward_shape(x: Tensor) -> tuple[Tensor, Tensor]:
    out = x.new_empty(*x.shape[:-1], x.shape[-1] // 2 + 1)
    return out, torch.empty_like(out)


@torch.library.custom_op("holo::from_spectrum", mutates_args=())
def _inverse_operator(re: Tensor, im: Tensor, length: int) -> Tensor:
    return _from_spectrum(Pair(re, im), length).contiguous()


@_inverse_operator.register_fake
def _inverse_shape(re: Tensor, im: Tensor, length: int) -> Tensor:
    return re.new_empty(*re.shape[:-1], length)


def _keep_input_length(ctx: Any, inputs: tuple[Tensor], output: Any) -> None:
    ctx.length = inputs[0].shape[-1]


def _forward_gradient(ctx: Any, d_re: Tensor, d_im: Tensor) -> Tensor:
    weight = _stands_for(ctx.length, d_re)
    out: Tensor = _inverse_operator(d_re / weight, d_im / weight, ctx.length)
    return out


def _keep_length(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Any) -> None:
    ctx.length = inputs[2]


def _inverse_gradient(ctx: Any, d_x: Tensor) -> tuple[Tensor, Tensor, None]:
    re, im = _forward_operator(d_x)
    weight = _stands_for(ctx.length, d_x)
    return re * weight, im * weight, None


_forward_operator.register_autograd(_forward_gradient, setup_context=_keep_input_length)
_inverse_operator.register_autograd(_inverse_gradient, setup_context=_keep_length)


def spectral_rates(length: int, plates: int, fraction: float) -> tuple[float, ...]:
    """Radians per token of each stored bin, plate by plate, R f numbers.

    A rotated spectrum is still that of a real signal if rate(-k) = -rate(k): zero where k is its
    own mirror image, at 0 and, for even lengths, at the end.
    """
    turning = (length - 1) // 2  # bins whose mirror image is not stored
    rates = phase_rates(plates * turning, fraction)
    ends = [0.0] * (length // 2 - turning)
    found: list[float] = []
    for r in range(plates):
        found += [0.0, *rates[r * turning : (r + 1) * turning], *ends]
    return tuple(found)
