"""hrr: binding by circular convolution, done in the spectrum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic.binding import HRR, PhasorBinding
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.phasors import Pair, phasor
from holo_cli.models.holographic.spectra import spectral_rates, spectrum, unit_magnitude
from tests.models.holographic.parts import awake, config, randn


def test_hrr_binds_by_circular_convolution() -> None:
    k, v = randn(8), randn(8, seed=1)
    bound = [sum(k[j] * v[(n - j) % 8] for j in range(8)) for n in range(8)]
    product = spectrum(k).times(spectrum(v))
    got = torch.fft.irfft(torch.complex(*product), norm="ortho") * math.sqrt(8)
    torch.testing.assert_close(got, torch.stack(bound))


def test_hrr_keys_have_unit_magnitude_whatever_their_length() -> None:
    memory = awake(Memory(config(binding="hrr")))
    x, v = randn(1, 7, 16), randn(1, 7, 2, 8, seed=1)
    q, k = memory.binding.keys(x)
    for pair in (q, k):
        torch.testing.assert_close(pair.re**2 + pair.im**2, torch.ones_like(pair.re))
    before = memory(x, v)
    memory.binding.qk_proj.weight.data *= 10
    torch.testing.assert_close(memory(x, v), before)


def test_without_the_projection_the_transform_is_absorbed_in_the_weights() -> None:
    """F(W x) = (F W) x: one more linear map. Projected, it is no linear map at all."""
    weight, x, other = randn(8, 16), randn(16, seed=1), randn(16, seed=2)
    absorbed = torch.complex(*spectrum(weight.T)).T  # the columns transformed
    plain = torch.complex(*spectrum(weight @ x))
    torch.testing.assert_close(absorbed @ x.to(absorbed.dtype), plain)

    def projected(t: Tensor) -> Tensor:
        return torch.complex(*unit_magnitude(spectrum(weight @ t)))

    assert (projected(x + other) - projected(x) - projected(other)).abs().max() > 0.1


def test_a_vanishing_spectral_line_gives_finite_gradients() -> None:
    z = torch.zeros(3, requires_grad=True)
    pair = unit_magnitude(Pair(z, z))
    (pair.re.sum() + pair.im.sum()).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("width", [8, 60, 64])
def test_rotated_spectra_stay_those_of_real_signals(width: int) -> None:
    binding = HRR(config(width=width, binding="hrr", plates=3))
    size, f = width // 2, binding.channels
    z = spectrum(randn(size))
    for plate in range(3):
        rates = binding.transform.rates[plate * f :][:f]
        angle = 5.0 * torch.tensor(rates, dtype=torch.float64)
        rotated = torch.complex(*z.times(phasor(angle)))
        signal = torch.fft.irfft(rotated, n=size, norm="ortho")
        again = torch.fft.rfft(signal, norm="ortho")
        torch.testing.assert_close(again, rotated)  # nothing was lost: it was a real signal's


@pytest.mark.parametrize(("length", "own"), [(4, {0, 2}), (7, {0}), (16, {0, 8})])
def test_all_bins_rotate_but_their_own_mirror_images(length: int, own: set[int]) -> None:
    bins = length // 2 + 1
    found = spectral_rates(length, 3, 1.0)
    assert len(found) == 3 * bins
    for plate in range(3):
        assert {k for k in range(bins) if not found[plate * bins + k]} == own
    rotating = [r for r in found if r]
    assert len(set(rotating)) == len(rotating)  # over plates too


def test_plates_rotate_at_different_rates_so_that_distance_shows_in_magnitude() -> None:
    """With one rate a channel reads every distance with the same magnitude."""
    magnitude = {}
    for plates in (1, 4):
        binding = PhasorBinding(config(phases="learned", plates=plates, width=64))
        rate = torch.tensor(binding.transform.rates, dtype=torch.float64).view(plates, -1)
        distance = torch.arange(200)[:, None, None]
        kernel = torch.polar(torch.ones(1, dtype=torch.float64), distance * rate).mean(1).abs()
        magnitude[plates] = kernel.std(0).min().item()
    assert magnitude[1] < 1e-9
    assert magnitude[4] > 0.1
