"""How a token becomes a key, a query and a value of the memory: `phasor` and `hrr`.

Legend: B rows, S positions, C width, H heads, e = C / H, R plates, f complex channels of a head.
Both give unit-magnitude keys and queries, one set per plate, turned by their position; one value
for all plates; and the way back from complex channels to the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.phasors import Pair, full_precision, phasor, rates, turns, wide

SMALL = 1e-3  # a spectral line below this is not blown up to magnitude 1


class Binding(nn.Module, ABC):
    """`channels` is f; `code` holds the projections of 2 R plates (queries, then keys)."""

    channels: int
    code: nn.Linear
    rates: tuple[float, ...]  # R f of them, plate by plate

    def __init__(self, config: Config, plate_width: int) -> None:
        super().__init__()
        self.heads, self.plates = config.heads, config.plates
        self.code = nn.Linear(config.width, 2 * self.plates * plate_width, bias=False)
        # to Muon each plate is a matrix of its own
        self.code.weight.splits = 2 * self.plates  # type: ignore[attr-defined]

    @abstractmethod
    def keys(self, x: Tensor, start: int) -> tuple[Pair, Pair]:
        """(B, S, C) at positions start.. -> queries and keys, pairs of (B, H, S, R, f)."""

    @abstractmethod
    def value(self, v: Tensor) -> Pair:
        """(B, S, H, e) -> (B, H, S, f)."""

    @abstractmethod
    def back(self, y: Pair) -> Tensor:
        """The inverse of `value`."""

    def _codes(self, x: Tensor) -> Tensor:
        """(B, S, C) -> (2, B, H, S, R, one plate's width of a head), float32 at least."""
        batch, length, _ = x.shape
        code = self.code(x).view(batch, length, 2, self.plates, self.heads, -1)
        return code.permute(2, 0, 4, 1, 3, 5).to(wide(x.dtype))

    def _turns(self, x: Tensor, start: int) -> Tensor:
        """(S, R, f)"""
        angles = turns(self.rates, start, x.shape[1], wide(x.dtype), x.device)
        return angles.unflatten(1, (self.plates, self.channels))


class Phasor(Binding):
    """Phases phi = W x, keys e^{i phi}; the head's halves are real and imaginary part of v."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.width // 2)
        self.channels = config.head_width // 2
        self.rates = tuple(rates(self.plates * self.channels, config.rope_fraction))

    def keys(self, x: Tensor, start: int) -> tuple[Pair, Pair]:
        waves = phasor(self._codes(x) + self._turns(x, start))
        return Pair(waves.re[0], waves.im[0]), Pair(waves.re[1], waves.im[1])

    def value(self, v: Tensor) -> Pair:
        v = v.transpose(1, 2).to(wide(v.dtype))
        return Pair(v[..., : self.channels], v[..., self.channels :])

    def back(self, y: Pair) -> Tensor:
        return torch.cat(y, dim=-1).transpose(1, 2)


class Reduced(Binding):
    """Holographic reduced representations (Plate 1995): binding is circular convolution.

    That is a product of spectra, so the memory lives in the spectrum of the head, seen as a line,
    a plane or a volume. Keys are projected to magnitude 1 at every frequency: without it the
    transform of a linear projection would be one more linear projection, and change nothing.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.width)
        self.shape = config.shape
        *outer, last = self.shape
        self.bins = (*outer, last // 2 + 1)
        self.channels = 1
        for length in self.bins:
            self.channels *= length
        self.rates = spectral_rates(self.shape, self.plates, config.rope_fraction)

    def keys(self, x: Tensor, start: int) -> tuple[Pair, Pair]:
        waves = unit(spectrum(self._codes(x), self.shape))
        waves = waves.times(phasor(self._turns(x, start)))
        return Pair(waves.re[0], waves.im[0]), Pair(waves.re[1], waves.im[1])

    def value(self, v: Tensor) -> Pair:
        return spectrum(v.transpose(1, 2).to(wide(v.dtype)), self.shape)

    def back(self, y: Pair) -> Tensor:
        return from_spectrum(y, self.shape, self.bins).transpose(1, 2)


def unit(z: Pair) -> Pair:
    """z / max(|z|, SMALL), elementwise."""
    # under the root, not after it: the gradient of |z| at zero would be NaN
    scale = (z.re.square() + z.im.square()).clamp_min(SMALL**2).rsqrt()
    return Pair(z.re * scale, z.im * scale)


@torch.compiler.disable  # compilers have no FFT of their own and stumble over complex numbers
def spectrum(x: Tensor, shape: tuple[int, ...]) -> Pair:
    """(..., e) real -> (..., f): the real FFT over the last dimension seen as `shape`."""
    axes = tuple(range(-len(shape), 0))
    with full_precision(x):
        z = torch.fft.rfftn(x.unflatten(-1, shape), dim=axes, norm="ortho").flatten(axes[0])
    return Pair(z.real, z.imag)


@torch.compiler.disable
def from_spectrum(z: Pair, shape: tuple[int, ...], bins: tuple[int, ...]) -> Tensor:
    """The inverse of `spectrum`."""
    axes = tuple(range(-len(shape), 0))
    with full_precision(z.re):
        whole = torch.complex(z.re, z.im).unflatten(-1, bins)
        return torch.fft.irfftn(whole, s=shape, dim=axes, norm="ortho").flatten(axes[0])


def spectral_rates(shape: tuple[int, ...], plates: int, fraction: float) -> tuple[float, ...]:
    """Radians per token of each stored bin, plate by plate; turned spectra stay real signals'.

    That asks for rate(-k) = -rate(k): zero where k is its own mirror image, and opposite signs
    where both of a pair are stored, which happens in the planes of the last axis' ends.
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
