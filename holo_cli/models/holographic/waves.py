"""From what a token writes to waves of magnitude 1, and the gradient back: `Phases`, `Spectra`.

These serve the hand-written passes of `sweep.py`: they run without autograd, in the layout that is
fast there (positions last), and keep nothing, so that a backward pass makes its waves again instead
of storing them. Each `pull` is a derivative worked out by hand; tests hold it against autograd's.

Legend: N any leading dimensions, e = C / H, R plates, f complex channels, p numbers that a plate's
wave is made of, c positions in a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from holo_cli.models.holographic.phasors import Pair, phasor, turns
from holo_cli.models.holographic.spectra import SMALL, from_spectrum, spectrum


class Waves(NamedTuple):
    """Unit waves (N, R, f, c), and by how much spectra were scaled to become them."""

    re: Tensor
    im: Tensor
    scale: Tensor | None = None

    @property
    def pair(self) -> Pair:
        return Pair(self.re, self.im)

    def of(self, i: int) -> Waves:
        """Queries (0) or keys (1), of waves (..., 2, R, f, c)."""
        scale = None if self.scale is None else self.scale[..., i, :, :, :]
        return Waves(self.re[..., i, :, :, :], self.im[..., i, :, :, :], scale)


class Front(ABC):
    """`numbers` is p; `into` and `out` lead from a head to its channels and back, (2 f, e) and
    (e, 2 f), real parts first, or are None where the channels are the head's own numbers."""

    numbers: int

    def __init__(self, plates: int, channels: int, rates: tuple[float, ...]) -> None:
        self.plates, self.channels, self.rates = plates, channels, rates

    def angles(self, start: int, length: int, like: Tensor) -> Tensor:
        """How far each channel has turned at positions start ..: (R, f, length) radians."""
        return _angles(self.rates, self.plates, start, length, like.dtype, like.device)

    @abstractmethod
    def matrices(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """`into` and `out`."""

    @abstractmethod
    def waves(self, raw: Tensor, angles: Tensor, room: Tensor) -> Waves:
        """raw (N, R, p, c), which is used up, angles (R, f, c) -> waves; `room` is of raw's shape
        and may become a part of them."""

    @abstractmethod
    def pull(
        self, out: Tensor, waves: Waves, angles: Tensor, small: Pair, done: Pair, whole: Pair
    ) -> None:
        """The gradient of what was written, (N, R, p, c), into `out`.

        Of a query's waves, where y = conj(wave) whole and `small` is the gradient of y; and of a
        key's, where bound = wave * small and `whole` is the gradient of bound. In both the gradient
        of the wave is whole * conj(small), and done = conj(wave) whole.
        """


class Phases(Front):
    """e^{i (phase + t w)}: what a token writes is the phase, p = f."""

    def __init__(self, plates: int, channels: int, rates: tuple[float, ...]) -> None:
        super().__init__(plates, channels, rates)
        self.numbers = channels

    def matrices(self, like: Tensor) -> tuple[None, None]:
        return None, None

    def waves(self, raw: Tensor, angles: Tensor, room: Tensor) -> Waves:
        raw.add_(angles)
        torch.cos(raw, out=room)
        return Waves(room, raw.sin_())

    def pull(
        self, out: Tensor, waves: Waves, angles: Tensor, small: Pair, done: Pair, whole: Pair
    ) -> None:
        # a phase can do no more than turn its wave: Im(conj(small) done) is the whole gradient
        torch.mul(small.re, done.im, out=out)
        out.addcmul_(small.im, done.re, value=-1.0)


class Spectra(Front):
    """F / max(|F|, SMALL) * e^{i t w} for the spectrum F of the e numbers written, p = e.

    The transform is a product with a constant matrix: heads are small, and one product of matrices
    is faster than many tiny FFTs and runs on every device. The FFT makes the matrix.
    """

    def __init__(
        self, plates: int, shape: tuple[int, ...], bins: tuple[int, ...], rates: tuple[float, ...]
    ) -> None:
        super().__init__(plates, torch.Size(bins).numel(), rates)
        self.shape, self.bins = shape, bins
        self.numbers = torch.Size(shape).numel()

    def matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _transforms(self.shape, self.bins, like.dtype, like.device)

    def waves(self, raw: Tensor, angles: Tensor, room: Tensor) -> Waves:
        into, _ = self.matrices(raw)
        re, im = torch.matmul(into, raw).split(self.channels, dim=-2)
        # under the root, not after it: the gradient of |z| at zero would be NaN
        scale = (re.square() + im.square()).clamp_min_(SMALL**2).rsqrt_()
        return Waves(*Pair(re * scale, im * scale).times(phasor(angles)), scale)

    def pull(
        self, out: Tensor, waves: Waves, angles: Tensor, small: Pair, done: Pair, whole: Pair
    ) -> None:
        scale = waves.scale
        assert scale is not None
        into, _ = self.matrices(out)
        d = small.conj_times(whole)
        # where the magnitude was made 1, what would change it is lost
        along = waves.re * d.re + waves.im * d.im
        along.masked_fill_(scale >= 1 / SMALL, 0.0)
        d = Pair(d.re - waves.re * along, d.im - waves.im * along)
        d = phasor(angles).conj_times(d)  # the turn undone
        out.copy_(into.mT @ torch.cat((d.re * scale, d.im * scale), dim=-2))


@lru_cache(maxsize=32)
def _transforms(
    shape: tuple[int, ...], bins: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The real FFT over `shape` and its inverse as matrices, (2 f, e) and (e, 2 f)."""
    # outside inference mode: made while generating, they may serve a training step later
    with torch.inference_mode(False), torch.no_grad():
        numbers, channels = torch.Size(shape).numel(), torch.Size(bins).numel()
        into = torch.cat(spectrum(torch.eye(numbers, dtype=torch.float64), shape), dim=1)
        units = torch.eye(2 * channels, dtype=torch.float64).split(channels, dim=1)
        back = from_spectrum(Pair(*units), shape, bins)
        # an eye's rows through the transform are the columns of its matrix
        return into.T.to(dtype).to(device), back.T.to(dtype).to(device)


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
        by_position = turns(rates, start, length, dtype, device)
        return by_position.T.reshape(plates, -1, length).contiguous()
