"""From projections to queries and keys of magnitude 1, and the gradient back.

`PhaseTransform`, `FeatureTransform` and `SpectrumTransform` serve the hand-written passes of
`chunk_scan.py`. They run without autograd, with positions last (the fast layout there), and store
nothing: the backward pass computes keys again. Each `vjp` is derived by hand and tested against
autograd.

Legend: N any leading dimensions that end with the heads H, e = C / H, R plates, f complex channels,
P projections of a head and p numbers in each: R of them, or one point for all plates; c positions
in a row. A 2 after N is queries and keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from holo_cli.models.holographic.phasors import Pair, phasor, rotation_angles
from holo_cli.models.holographic.random_features import KernelName, frequencies
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


@dataclass
class KeyBuffers:
    """Memory of one span for queries and keys; overwritten with every span.

    `raw`, `grad` (N, 2, P, p, c): the projections, to be filled in, and their gradients.
    """

    raw: Tensor
    grad: Tensor


class KeyTransform(ABC):
    """`inputs` is p, `maps` is P."""

    inputs: int

    def __init__(self, plates: int, channels: int, rates: tuple[float, ...]) -> None:
        self.plates, self.channels, self.rates = plates, channels, rates
        self.maps = plates

    def angles(self, start: int, length: int, like: Tensor) -> Tensor:
        """Rotation of each channel at positions start ..: (R, f, length) radians."""
        return _angles(self.rates, self.plates, start, length, like.dtype, like.device)

    @abstractmethod
    def matrices(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """From a head to its complex channels and back, (2 f, e) and (e, 2 f), real parts first;
        None where the channels are the head's own numbers."""

    def buffers(
        self, lead: tuple[int, ...], length: int, like: Tensor, offset: Tensor | None
    ) -> KeyBuffers:
        """For N = `lead` and rows of `length` positions. `offset` (R, H, f) is added to the phases
        of queries; only `FeatureTransform` has one."""
        assert offset is None
        return KeyBuffers(*like.new_empty(2, *lead, 2, self.maps, self.inputs, length))

    @abstractmethod
    def keys(self, buffers: KeyBuffers, angles: Tensor) -> UnitKeys:
        """The queries and keys (N, 2, R, f, c) of `buffers.raw`, which is overwritten; they may lie
        in the buffers. angles (R, f, c), or with leading dimensions that broadcast."""

    @abstractmethod
    def vjp(
        self, part: int, buffers: KeyBuffers, keys: UnitKeys, angles: Tensor, head: Pair,
        product: Pair, plates: Pair,
    ) -> None:  # fmt: skip
        """Write the gradient with respect to `raw` of queries (part 0) or keys (part 1), whose unit
        keys are given, into `buffers.grad`.

        The gradient of the keys is plates * conj(head), and product = conj(keys) * plates. For
        queries, which read y = conj(q) * M, `head` is dy and `plates` is M; for keys, which bind
        X = k * v, `head` is v and `plates` is dX.
        """

    def offset_gradient(self, buffers: KeyBuffers) -> Tensor | None:
        """Of `offset`, from the queries of this span; after `vjp` of part 0."""
        return None


@dataclass
class PhaseBuffers(KeyBuffers):
    cosines: Tensor  # (N, 2, R, f, c)


class PhaseTransform(KeyTransform):
    """e^{i (phase + t w)}: the projection is the phase, p = f."""

    def __init__(self, plates: int, channels: int, rates: tuple[float, ...]) -> None:
        super().__init__(plates, channels, rates)
        self.inputs = channels
        self.rotated = sum(rate != 0 for rate in rates)  # the first of the R f channels

    def matrices(self, like: Tensor) -> tuple[None, None]:
        return None, None

    def buffers(
        self, lead: tuple[int, ...], length: int, like: Tensor, offset: Tensor | None
    ) -> PhaseBuffers:
        assert offset is None
        return PhaseBuffers(*like.new_empty(3, *lead, 2, self.plates, self.channels, length))

    def keys(self, buffers: KeyBuffers, angles: Tensor) -> UnitKeys:
        assert isinstance(buffers, PhaseBuffers)
        return self._unit(buffers.raw, angles, buffers.cosines)

    def vjp(
        self, part: int, buffers: KeyBuffers, keys: UnitKeys, angles: Tensor, head: Pair,
        product: Pair, plates: Pair,
    ) -> None:  # fmt: skip
        self._dphase(buffers.grad[..., part, :, :, :], head, product)

    def _unit(self, phases: Tensor, angles: Tensor, cosines: Tensor) -> UnitKeys:
        """Overwrites the phases (N, 2, R, f, c)."""
        channels = slice(self.rotated)
        phases.flatten(-3, -2)[..., channels, :].add_(angles.flatten(-3, -2)[..., channels, :])
        torch.cos(phases, out=cosines)
        return UnitKeys(cosines, phases.sin_())

    @staticmethod
    def _dphase(out: Tensor, head: Pair, product: Pair) -> None:
        # a phase only rotates its key, so the whole gradient is Im(conj(head) product)
        torch.mul(head.re, product.im, out=out)
        out.addcmul_(head.im, product.re, value=-1.0)


@dataclass
class FeatureBuffers(PhaseBuffers):
    extended: Tensor  # (N, 2, d + 1, c): the points (`raw` is a view of them), and ones
    weights: Tensor  # (N, 2, R f, d + 1): frequencies / sqrt(d), and the offsets
    phases: Tensor  # (N, 2, R, f, c)
    dphase: Tensor  # (N, R, f, c)
    doffset: Tensor  # (N, R, f)


class FeatureTransform(PhaseTransform):
    """Phases w . z / sqrt(d) + offset of points z of d coordinates, at the fixed frequencies w of
    `random_features.py`: P = 1, p = d. Only points go through memory: a span's phases are made and
    used up in its buffers. An offset is one more coordinate, which is 1."""

    def __init__(
        self, kernel: KernelName, plates: int, channels: int, coords: int, rates: tuple[float, ...]
    ) -> None:
        super().__init__(plates, channels, rates)
        self.kernel: KernelName = kernel
        self.inputs, self.maps = coords, 1

    def table(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """w / sqrt(d), (R, f, d)."""
        w = frequencies(self.kernel, self.plates, self.channels, self.inputs, dtype, device)
        return w * self.inputs**-0.5

    def buffers(
        self, lead: tuple[int, ...], length: int, like: Tensor, offset: Tensor | None
    ) -> FeatureBuffers:
        assert offset is not None
        table = self.table(like.dtype, like.device).flatten(0, 1)
        weights = like.new_empty(*lead, 2, *table.shape[:1], self.inputs + 1)
        weights[..., :-1] = table
        weights[..., 0, :, -1] = offset.transpose(0, 1).flatten(1)
        weights[..., 1, :, -1] = 0.0
        extended = like.new_ones(*lead, 2, self.inputs + 1, length)
        size = (self.plates, self.channels, length)
        phases, cosines = like.new_empty(2, *lead, 2, *size)
        return FeatureBuffers(
            raw=extended[..., None, :-1, :],
            grad=like.new_empty(*lead, 2, 1, self.inputs, length), cosines=cosines,
            extended=extended, weights=weights, phases=phases,
            dphase=like.new_empty(*lead, *size), doffset=like.new_empty(*lead, *size[:-1]),
        )  # fmt: skip

    def keys(self, buffers: KeyBuffers, angles: Tensor) -> UnitKeys:
        assert isinstance(buffers, FeatureBuffers)
        phases = buffers.phases
        batch = phases.shape[:-3].numel()
        torch.bmm(
            buffers.weights.view(batch, -1, self.inputs + 1),
            buffers.extended.view(batch, self.inputs + 1, -1),
            out=phases.view(batch, -1, phases.shape[-1]),
        )
        return self._unit(phases, angles, buffers.cosines)

    def vjp(
        self, part: int, buffers: KeyBuffers, keys: UnitKeys, angles: Tensor, head: Pair,
        product: Pair, plates: Pair,
    ) -> None:  # fmt: skip
        assert isinstance(buffers, FeatureBuffers)
        self._dphase(buffers.dphase, head, product)
        dphase = buffers.dphase.flatten(-3, -2)  # (N, R f, c)
        table = buffers.weights[..., part, :, :-1]
        buffers.grad[..., part, 0, :, :].copy_(table.mT @ dphase)
        if part == 0:
            torch.sum(buffers.dphase, -1, out=buffers.doffset)

    def offset_gradient(self, buffers: KeyBuffers) -> Tensor:
        assert isinstance(buffers, FeatureBuffers)
        lead = buffers.doffset.ndim - 3
        return buffers.doffset.sum(tuple(range(lead))).transpose(0, 1)


class SpectrumTransform(KeyTransform):
    """F / max(|F|, SMALL) * e^{i t w} for the spectrum F of the e projected numbers, p = e.

    The transform is a product with a constant matrix, which the FFT makes: heads are small, and one
    matrix product is faster than many tiny FFTs and runs on every device.
    """

    def __init__(self, plates: int, inputs: int, rates: tuple[float, ...]) -> None:
        super().__init__(plates, inputs // 2 + 1, rates)
        self.inputs = inputs

    def matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _transforms(self.inputs, like.dtype, like.device)

    def keys(self, buffers: KeyBuffers, angles: Tensor) -> UnitKeys:
        raw = buffers.raw
        to_channels, _ = self.matrices(raw)
        re, im = torch.matmul(to_channels, raw).split(self.channels, dim=-2)
        # under the root, not after it: the gradient of |z| at zero would be NaN
        scale = (re.square() + im.square()).clamp_min_(SMALL**2).rsqrt_()
        return UnitKeys(*Pair(re * scale, im * scale).times(phasor(angles)), scale)

    def vjp(
        self, part: int, buffers: KeyBuffers, keys: UnitKeys, angles: Tensor, head: Pair,
        product: Pair, plates: Pair,
    ) -> None:  # fmt: skip
        out, scale = buffers.grad[..., part, :, :, :], keys.scale
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
def _transforms(inputs: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The real FFT over e = `inputs` numbers and its inverse as matrices, (2 f, e) and
    (e, 2 f)."""
    # outside inference mode: a matrix cached while generating may serve a training step later
    with torch.inference_mode(False), torch.no_grad():
        channels = inputs // 2 + 1
        forward = torch.cat(spectrum(torch.eye(inputs, dtype=torch.float64)), dim=1)
        units = torch.eye(2 * channels, dtype=torch.float64).split(channels, dim=1)
        inverse = from_spectrum(Pair(*units), inputs)
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
