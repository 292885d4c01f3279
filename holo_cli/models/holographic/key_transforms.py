"""From projections to queries and keys of magnitude 1, and the gradient back.

`PhaseTransform` and `SpectrumTransform` serve the hand-written passes of `chunk_scan.py`. They run
without autograd, with positions last (the fast layout there), and store nothing: the backward pass
computes keys again. Each `vjp` is derived by hand and tested against autograd.

Legend: N any leading dimensions, e = C / H, R plates, f complex channels, p real numbers that a
plate's key is made of, c positions in a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from holo_cli.models.holographic.phasors import Pair, phasor, rotation_angles
from holo_cli.models.holographic.spectra import SMALL, from_spectrum, spectrum


class UnitKeys(NamedTuple):
    """Queries or keys of magnitude 1 (N, R, f, c); `scale`: what their spectra were multiplied
    with, None for phases."""

    re: Tensor
    im: Tensor
    scale: Tensor | None = None

    @property
    def pair(self) -> Pair:
        return Pair(self.re, self.im)

    def part(self, i: int) -> UnitKeys:
        """Queries (i = 0) or keys (i = 1) of (..., 2, R, f, c)."""
        scale = None if self.scale is None else self.scale[..., i, :, :, :]
        return UnitKeys(self.re[..., i, :, :, :], self.im[..., i, :, :, :], scale)


class KeyTransform(ABC):
    """`inputs` is p."""

    inputs: int

    def __init__(self, plates: int, channels: int, rates: tuple[float, ...]) -> None:
        self.plates, self.channels, self.rates = plates, channels, rates

    def angles(self, start: int, length: int, like: Tensor) -> Tensor:
        """Rotation of each channel at positions start ..: (R, f, length) radians."""
        return _angles(self.rates, self.plates, start, length, like.dtype, like.device)

    @abstractmethod
    def matrices(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """From a head to its complex channels and back, (2 f, e) and (e, 2 f), real parts first;
        None where the channels are the head's own numbers."""

    @abstractmethod
    def keys(self, raw: Tensor, angles: Tensor, buffer: Tensor) -> UnitKeys:
        """raw (N, R, p, c), which is overwritten, angles (R, f, c) -> queries or keys, which may
        use `buffer`, of raw's shape."""

    @abstractmethod
    def vjp(
        self, out: Tensor, keys: UnitKeys, angles: Tensor, head: Pair, product: Pair, plates: Pair
    ) -> None:
        """Write the gradient with respect to `raw`, (N, R, p, c), into `out`.

        The gradient of the keys is plates * conj(head), and product = conj(keys) * plates. For
        queries, which read y = conj(q) * M, `head` is dy and `plates` is M; for keys, which bind
        X = k * v, `head` is v and `plates` is dX.
        """


class PhaseTransform(KeyTransform):
    """e^{i (phase + t w)}: the projection is the phase, p = f."""

    def __init__(self, plates: int, channels: int, rates: tuple[float, ...]) -> None:
        super().__init__(plates, channels, rates)
        self.inputs = channels

    def matrices(self, like: Tensor) -> tuple[None, None]:
        return None, None

    def keys(self, raw: Tensor, angles: Tensor, buffer: Tensor) -> UnitKeys:
        raw.add_(angles)
        torch.cos(raw, out=buffer)
        return UnitKeys(buffer, raw.sin_())

    def vjp(
        self, out: Tensor, keys: UnitKeys, angles: Tensor, head: Pair, product: Pair, plates: Pair
    ) -> None:
        # a phase only rotates its key, so the whole gradient is Im(conj(head) product)
        torch.mul(head.re, product.im, out=out)
        out.addcmul_(head.im, product.re, value=-1.0)


class SpectrumTransform(KeyTransform):
    """F / max(|F|, SMALL) * e^{i t w} for the spectrum F of the e projected numbers, p = e.

    The transform is a product with a constant matrix, which the FFT makes: heads are small, and one
    matrix product is faster than many tiny FFTs and runs on every device.
    """

    def __init__(
        self, plates: int, shape: tuple[int, ...], bins: tuple[int, ...], rates: tuple[float, ...]
    ) -> None:
        super().__init__(plates, torch.Size(bins).numel(), rates)
        self.shape, self.bins = shape, bins
        self.inputs = torch.Size(shape).numel()

    def matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _transforms(self.shape, self.bins, like.dtype, like.device)

    def keys(self, raw: Tensor, angles: Tensor, buffer: Tensor) -> UnitKeys:
        to_channels, _ = self.matrices(raw)
        re, im = torch.matmul(to_channels, raw).split(self.channels, dim=-2)
        # under the root, not after it: the gradient of |z| at zero would be NaN
        scale = (re.square() + im.square()).clamp_min_(SMALL**2).rsqrt_()
        return UnitKeys(*Pair(re * scale, im * scale).times(phasor(angles)), scale)

    def vjp(
        self, out: Tensor, keys: UnitKeys, angles: Tensor, head: Pair, product: Pair, plates: Pair
    ) -> None:
        scale = keys.scale
        assert scale is not None
        to_channels, _ = self.matrices(out)
        d = head.conj_times(plates)
        # where the magnitude was set to 1, the component along the key has no gradient
        along = keys.re * d.re + keys.im * d.im
        along.masked_fill_(scale >= 1 / SMALL, 0.0)
        d = Pair(d.re - keys.re * along, d.im - keys.im * along)
        d = phasor(angles).conj_times(d)
        out.copy_(to_channels.mT @ torch.cat((d.re * scale, d.im * scale), dim=-2))


@lru_cache(maxsize=32)
def _transforms(
    shape: tuple[int, ...], bins: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The real FFT over `shape` and its inverse as matrices, (2 f, e) and (e, 2 f)."""
    # outside inference mode: a matrix cached while generating may serve a training step later
    with torch.inference_mode(False), torch.no_grad():
        inputs, channels = torch.Size(shape).numel(), torch.Size(bins).numel()
        forward = torch.cat(spectrum(torch.eye(inputs, dtype=torch.float64), shape), dim=1)
        units = torch.eye(2 * channels, dtype=torch.float64).split(channels, dim=1)
        inverse = from_spectrum(Pair(*units), shape, bins)
        # the transform of an identity's rows is the transposed matrix
        return forward.T.to(dtype).to(device), inverse.T.to(dtype).to(device)


@lru_cache(maxsize=32)
def _angles(
    rates: tuple[float, ...],
    plates: int,
    start: int,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    with torch.inference_mode(False):
        by_position = rotation_angles(rates, start, length, dtype, device)
        return by_position.T.reshape(plates, -1, length).contiguous()
