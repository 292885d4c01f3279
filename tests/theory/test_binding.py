"""docs/theory.md, section 5: binding over a line, a plane and a volume."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.holographic.memory import Memory, read, store
from holo_cli.models.holographic.phasors import Pair
from holo_cli.models.holographic.spectra import (
    from_spectrum,
    spectral_rates,
    spectrum,
    unit_magnitude,
)
from tests.models.holographic.parts import config, randn

SHAPES = [(16,), (4, 4), (2, 2, 4), (15,), (3, 5)]


def bins(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2 + 1)


def mirrored(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of the stored bins: which are their own mirror image, and whether the mirror is stored."""
    stored = list(product(*(range(n) for n in bins(shape))))
    other = [tuple(-i % n for i, n in zip(k, shape, strict=True)) for k in stored]
    own = [a == b for a, b in zip(stored, other, strict=True)]
    return torch.tensor(own), torch.tensor([b in set(stored) for b in other])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_keeps_lengths(shape: tuple[int, ...]) -> None:
    x = randn(7, math.prod(shape))
    z = spectrum(x, shape)
    count = torch.where(mirrored(shape)[1], 1.0, 2.0).double()  # a pair stored once counts twice
    energy = (z.re.square() + z.im.square()) @ count
    torch.testing.assert_close(energy, x.square().sum(1))
    torch.testing.assert_close(from_spectrum(z, shape, bins(shape)), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_of_spectra_is_a_circular_convolution(shape: tuple[int, ...]) -> None:
    a, b = randn(math.prod(shape)), randn(math.prod(shape), seed=1)
    found = from_spectrum(spectrum(a, shape).times(spectrum(b, shape)), shape, bins(shape))
    grid = list(product(*(range(n) for n in shape)))
    place = {k: i for i, k in enumerate(grid)}
    slow = torch.zeros_like(a)
    for i, j in product(grid, grid):
        total = tuple((x + y) % n for x, y, n in zip(i, j, shape, strict=True))
        slow[place[total]] += a[place[i]] * b[place[j]]
    torch.testing.assert_close(found, slow / math.sqrt(len(grid)))


def test_sides_without_a_common_divisor_are_a_permuted_line() -> None:
    """The Chinese remainder theorem: channel i of the line is channel (i mod 3, i mod 5)."""
    order = torch.tensor([(i % 3) * 5 + i % 5 for i in range(15)])
    a, b = randn(15), randn(15, seed=1)
    line = from_spectrum(spectrum(a, (15,)).times(spectrum(b, (15,))), (15,), (8,))
    scattered = [torch.empty_like(x).index_copy(0, order, x) for x in (a, b)]
    spectra = [spectrum(x, (3, 5)) for x in scattered]
    plane = from_spectrum(spectra[0].times(spectra[1]), (3, 5), (3, 3))
    torch.testing.assert_close(plane[order], line)


@pytest.mark.parametrize(("shape", "real"), [((16,), 2), ((4, 4), 4), ((2, 2, 4), 8), ((15,), 1)])
def test_what_differs_is_the_number_of_real_bins(shape: tuple[int, ...], real: int) -> None:
    """2 for each even side: keys there are +1 or -1, without gradient and without position."""
    own, _ = mirrored(shape)
    assert int(own.sum()) == real
    x = randn(5, math.prod(shape)).requires_grad_()
    key = unit_magnitude(spectrum(x, shape))
    torch.testing.assert_close(key.re[:, own].abs(), torch.ones(5, real, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((key.re[:, own] * randn(5, real, seed=2)).sum(), x)
    assert gradient.abs().max().item() < 1e-12
    rates = torch.tensor(spectral_rates(shape, 1, 1.0))
    assert bool((rates[own] == 0).all())
    assert bool((rates[~own] != 0).all())


@pytest.mark.parametrize(
    ("binding_shape", "stored"), [("1d", 33), ("2d", 8 * 5), ("3d", 4 * 4 * 3)]
)
def test_what_is_stored_grows_with_the_dimension(binding_shape: str, stored: int) -> None:
    memory = Memory(config(heads=1, width=64, binding="hrr", binding_shape=binding_shape))
    assert memory.channels == stored
    assert memory.state_numbers() == 2 * stored


def test_without_the_projection_a_linear_map_absorbs_the_transform() -> None:
    weight, x = randn(16, 16), randn(9, 16, seed=1)
    columns = spectrum(weight.T, (4, 4))  # F W, column by column
    found = spectrum(x @ weight.T, (4, 4))
    torch.testing.assert_close(found.re, x @ columns.re)
    torch.testing.assert_close(found.im, x @ columns.im)
    # with it, no linear map does: twice the input is the same key
    torch.testing.assert_close(
        unit_magnitude(spectrum(2 * x, (4, 4))).re, unit_magnitude(spectrum(x, (4, 4))).re
    )


@pytest.mark.parametrize(("items", "plates"), [(1, 1), (5, 1), (5, 4)])
def test_the_projection_is_worth_one_item_of_noise(items: int, plates: int) -> None:
    f = 30_000
    parts = torch.randn(
        2, 1, 1, items, plates, f, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    loose = Pair(*(parts / math.sqrt(2)))  # E |k|^2 = 1
    v = Pair(randn(1, 1, items, f, seed=1), randn(1, 1, items, f, seed=2))
    for keys, others in ((loose, items), (unit_magnitude(loose), items - 1)):
        last = store(keys, v, torch.zeros(1, 1, items, dtype=torch.float64))[:, :, -1:]
        found = read(keys, last.expand(-1, -1, items, -1, -1, -1))
        cosine = F.cosine_similarity(torch.cat(found, -1), torch.cat(v, -1), dim=-1).mean()
        assert cosine.item() == pytest.approx(1 / math.sqrt(1 + others / plates), abs=0.01)


def test_binding_to_a_unit_key_keeps_lengths_and_is_undone_by_its_conjugate() -> None:
    keys = unit_magnitude(spectrum(randn(3, 16), (4, 4)))
    v = randn(3, 16, seed=1)
    bound = keys.times(spectrum(v, (4, 4)))
    torch.testing.assert_close(from_spectrum(bound, (4, 4), (4, 3)).norm(dim=1), v.norm(dim=1))
    torch.testing.assert_close(from_spectrum(keys.conj_times(bound), (4, 4), (4, 3)), v)
