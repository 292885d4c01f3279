"""How a token becomes a key, a query and a value of the memory: `phasor` and `hrr`.

Legend: B rows, S positions, C width, H heads, e = C / H, R plates, f complex channels of a head.
Both give unit-magnitude keys and queries, one set per plate, turned by their position; one value
for all plates; and the way back from complex channels to the head. `front` says the same to the
hand-written passes of `sweep.py`; what is here is the plain form, for autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.phasors import Pair, phasor, rates, turns, wide
from holo_cli.models.holographic.spectra import from_spectrum, spectral_rates, spectrum, unit
from holo_cli.models.holographic.waves import Front, Phases, Spectra


class Binding(nn.Module, ABC):
    """`code` holds the projections of 2 R plates (queries, then keys)."""

    front: Front

    def __init__(self, config: Config, plate_width: int) -> None:
        super().__init__()
        self.heads, self.plates = config.heads, config.plates
        self.qk_proj = nn.Linear(config.width, 2 * self.plates * plate_width, bias=False)
        # to Muon each plate is a matrix of its own
        self.qk_proj.weight.splits = 2 * self.plates  # type: ignore[attr-defined]

    @property
    def channels(self) -> int:
        """f"""
        return self.front.channels

    def written(self, x: Tensor) -> Tensor:
        """(B, S, C) -> what queries and keys are made of, (2, R, H, p, B, S)."""
        return positions_last(self.qk_proj, x).view(
            2, self.plates, self.heads, -1, x.shape[0], x.shape[1]
        )

    def keys(self, x: Tensor) -> tuple[Pair, Pair]:
        """(B, S, C) at positions 0 .. S - 1 -> queries and keys, pairs of (B, H, S, R, f)."""
        wave = self.waves(self.written(x).permute(0, 4, 2, 5, 1, 3).to(wide(x.dtype)))
        return Pair(wave.re[0], wave.im[0]), Pair(wave.re[1], wave.im[1])

    @abstractmethod
    def waves(self, code: Tensor) -> Pair:
        """What is written (..., S, R, p) -> unit waves (..., S, R, f)."""

    @abstractmethod
    def value(self, v: Tensor) -> Pair:
        """(B, S, H, e) -> (B, H, S, f)."""

    @abstractmethod
    def back(self, y: Pair) -> Tensor:
        """The inverse of `value`."""

    def _turns(self, code: Tensor) -> Tensor:
        """(S, R, f)"""
        angles = turns(self.front.rates, 0, code.shape[-3], code.dtype, code.device)
        return angles.unflatten(1, (self.plates, self.channels))


class Phasor(Binding):
    """Phases phi = W x, keys e^{i phi}; the head's halves are real and imaginary part of v."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.width // 2)
        channels = config.head_width // 2
        turning = tuple(rates(self.plates * channels, config.rope_fraction))
        self.front = Phases(self.plates, channels, turning)

    def waves(self, code: Tensor) -> Pair:
        return phasor(code + self._turns(code))

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
        turning = spectral_rates(self.shape, self.plates, config.rope_fraction)
        self.front = Spectra(self.plates, self.shape, self.bins, turning)

    def waves(self, code: Tensor) -> Pair:
        return unit(spectrum(code, self.shape)).times(phasor(self._turns(code)))

    def value(self, v: Tensor) -> Pair:
        return spectrum(v.transpose(1, 2).to(wide(v.dtype)), self.shape)

    def back(self, y: Pair) -> Tensor:
        return from_spectrum(y, self.shape, self.bins).transpose(1, 2)


def positions_last(linear: nn.Linear, x: Tensor) -> Tensor:
    """(B, S, C) -> W x as (O, B, S): a channel's positions next to each other in memory."""
    y: Tensor = torch.mm(linear.weight, x.flatten(0, 1).T)
    return y.view(-1, x.shape[0], x.shape[1])
