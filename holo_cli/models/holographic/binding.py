"""Queries, keys and values of the memory as complex numbers: `phasor` and `hrr`.

Both give queries and keys of magnitude 1, one per plate, rotated by position; one value for all
plates; and the inverse of the value map. This is the plain form, for autograd; `transform` is the
same for the hand-written passes of `chunk_scan.py`.

Legend: B rows, S positions, C width, H heads, e = C / H, R plates, f complex channels of a head, p
real numbers that a plate's key is made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from holo_cli.layers.precision import no_autocast, wide
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.key_transforms import (
    FeatureTransform,
    KeyTransform,
    PhaseTransform,
    SpectrumTransform,
)
from holo_cli.models.holographic.phasors import Pair, phase_rates, phasor, rotation_angles
from holo_cli.models.holographic.random_features import KernelName
from holo_cli.models.holographic.spectra import (
    from_spectrum,
    spectral_rates,
    spectrum,
    unit_magnitude,
)

OFFSET_RATE = 8.0  # radians per unit of a learned offset, since AdamW's steps are small


class Binding(nn.Module, ABC):
    """`qk_proj` stacks the projections, those of queries first: of each plate, or of points."""

    transform: KeyTransform

    def __init__(self, config: Config, plate_width: int, maps: int) -> None:
        """`maps` of C -> plate_width for queries, and as many for keys."""
        super().__init__()
        self.heads, self.plates = config.heads, config.plates
        self.qk_proj = nn.Linear(config.width, 2 * maps * plate_width, bias=False)
        # Muon orthogonalises each map by itself
        self.qk_proj.weight.splits = 2 * maps  # type: ignore[attr-defined]

    @torch.no_grad()
    def tie(self) -> None:
        """Make keys from the same weights as queries, which training may part again."""
        queries, keys = self.qk_proj.weight.chunk(2)
        keys.copy_(queries)

    @property
    def channels(self) -> int:
        """f"""
        return self.transform.channels

    def project(self, x: Tensor) -> Tensor:
        """(B, S, C) -> projections of queries and keys, (2, R, H, p, B, S)."""
        return positions_last(self.qk_proj, x).view(
            2, self.plates, self.heads, -1, x.shape[0], x.shape[1]
        )

    def scan_inputs(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, S, C) -> what `transform` makes queries and keys of, (2, P, H, p, B, S), and an
        offset (R, H, f) for the phases of queries, or None."""
        return self.project(x), None

    def keys(self, x: Tensor) -> tuple[Pair, Pair]:
        """(B, S, C) at positions 0 .. S - 1 -> queries and keys, pairs of (B, H, S, R, f)."""
        keys = self.unit_keys(self.project(x).permute(0, 4, 2, 5, 1, 3).to(wide(x.dtype)))
        return Pair(keys.re[0], keys.im[0]), Pair(keys.re[1], keys.im[1])

    @abstractmethod
    def unit_keys(self, projected: Tensor) -> Pair:
        """Projections (..., S, R, p) -> queries or keys of magnitude 1, (..., S, R, f)."""

    @abstractmethod
    def value(self, v: Tensor) -> Pair:
        """(B, S, H, e) -> (B, H, S, f)."""

    @abstractmethod
    def inverse_value(self, y: Pair) -> Tensor:
        """The inverse of `value`."""

    def _angles(self, projected: Tensor) -> Tensor:
        """(S, R, f)"""
        angles = rotation_angles(
            self.transform.rates, 0, projected.shape[-3], projected.dtype, projected.device
        )
        return angles.unflatten(1, (self.plates, self.channels))


class PhasorBinding(Binding):
    """Phases phi = W x, keys e^{i phi}; the head's halves are real and imaginary part of v."""

    transform: PhaseTransform

    def __init__(self, config: Config) -> None:
        if config.phases == "learned":
            super().__init__(config, config.width // 2, config.plates)
        else:
            super().__init__(config, config.heads * config.phase_coords, 1)
        channels = config.head_width // 2
        angular = tuple(phase_rates(self.plates * channels, config.rope_fraction))
        self.transform = PhaseTransform(self.plates, channels, angular)

    def unit_keys(self, projected: Tensor) -> Pair:
        return phasor(projected + self._angles(projected))

    def phases(self, projected: Tensor) -> Tensor:
        """Projections of one token, (B, O) -> phases of its query and key, (B, 2, H, R, f), not
        rotated: for decoding."""
        shape = (len(projected), 2, self.plates, self.heads, self.channels)
        return projected.view(shape).transpose(2, 3)

    def value(self, v: Tensor) -> Pair:
        v = v.transpose(1, 2).to(wide(v.dtype))
        return Pair(v[..., : self.channels], v[..., self.channels :])

    def inverse_value(self, y: Pair) -> Tensor:
        return torch.cat(y, dim=-1).transpose(1, 2)


class FeatureBinding(PhasorBinding):
    """Phases phi^r = w_r . z of a point z = W x / sqrt(d) in d coordinates a head, at fixed
    frequencies w: the plates estimate a kernel of |z - z'| (`random_features.py`), and cost no
    matrices. The root keeps phases at variance 1 at the start, and a step of W as large a step of
    phases, as learned ones have.

    A point of few coordinates cannot choose the phase of every channel, as reading at one distance
    asks for, so a query's phases have a learned offset each.
    """

    transform: FeatureTransform

    def __init__(self, config: Config, kernel: KernelName) -> None:
        super().__init__(config)
        self.kernel: KernelName = kernel
        self.coords = config.phase_coords
        self.offset = nn.Parameter(torch.zeros(self.plates, self.heads, self.channels))
        self.transform = FeatureTransform(
            kernel, self.plates, self.channels, self.coords, self.transform.rates
        )

    def project(self, x: Tensor) -> Tensor:
        """(B, S, C) -> phases of queries and keys, (2, R, H, f, B, S), float32 at least."""
        points, offset = self.scan_inputs(x)
        with no_autocast(x):  # a phase is far from 0: bfloat16 has not the digits
            points = points.to(offset.dtype).flatten(-2)
            table = self.transform.table(offset.dtype, offset.device)
            phases = torch.matmul(table[:, None], points)  # (2, R, H, f, B S)
            phases = phases + torch.stack((offset, torch.zeros_like(offset)))[..., None]
        return phases.unflatten(-1, x.shape[:2])

    def phases(self, projected: Tensor) -> Tensor:
        points = projected.view(len(projected), 2, self.heads, self.coords)
        table = self.transform.table(points.dtype, points.device).flatten(0, 1)  # (R f, d)
        found = (points @ table.T).unflatten(-1, (self.plates, self.channels))
        found[:, 0].add_(self.offset.transpose(0, 1), alpha=OFFSET_RATE)
        return found

    def scan_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, C) -> points of queries and keys (2, 1, H, d, B, S), and the offset (R, H, f),
        float32 at least."""
        points = positions_last(self.qk_proj, x).view(
            2, 1, self.heads, self.coords, x.shape[0], x.shape[1]
        )
        return points, OFFSET_RATE * self.offset.to(wide(points.dtype))


class HRR(Binding):
    """Holographic reduced representations (Plate 1995): binding is circular convolution.

    That is a product of spectra, so the memory lives in the spectrum of the head. Keys are
    projected to magnitude 1 at every frequency: without it the transform of a linear projection
    would be one more linear projection, and change nothing.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.width, config.plates)
        self.head_width = config.head_width
        angular = spectral_rates(self.head_width, self.plates, config.rope_fraction)
        self.transform = SpectrumTransform(self.plates, self.head_width, angular)

    def unit_keys(self, projected: Tensor) -> Pair:
        return unit_magnitude(spectrum(projected)).times(phasor(self._angles(projected)))

    def value(self, v: Tensor) -> Pair:
        return spectrum(v.transpose(1, 2).to(wide(v.dtype)))

    def inverse_value(self, y: Pair) -> Tensor:
        return from_spectrum(y, self.head_width).transpose(1, 2)


def make_binding(config: Config) -> Binding:
    if config.binding == "hrr":
        return HRR(config)
    if config.phases == "learned":
        return PhasorBinding(config)
    return FeatureBinding(config, config.phases)


def positions_last(linear: nn.Linear, x: Tensor) -> Tensor:
    """(B, S, C) -> W x as (O, B, S): a channel's positions next to each other in memory."""
    y: Tensor = torch.mm(linear.weight, x.flatten(0, 1).T)
    return y.view(-1, x.shape[0], x.shape[1])
