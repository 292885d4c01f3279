"""docs/theory.md, section 5: binding over a line, a plane and a volume.

holo binds over a line. The transforms over a plane and a volume are here, to show why their shape
changes next to nothing.
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.holographic import spectra
from holo_cli.models.holographic.memory import Memory, read, store
from holo_cli.models.holographic.phasors import Pair
from holo_cli.models.holographic.spectra import spectral_rates, unit_magnitude
from tests.models.holographic.parts import config, randn

SHAPES = [(16,), (4, 4), (2, 2, 4), (15,), (3, 5)]


def transform(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(..., e) real -> (..., f) complex: the FFT over the last dimension seen as `shape`."""
    axes = tuple(range(-len(shape), 0))
    return torch.fft.rfftn(x.unflatten(-1, shape), dim=axes, norm="ortho").flatten(axes[0])


def inverse(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    whole = z.unflatten(-1, bins(shape))
    return torch.fft.irfftn(whole, s=shape, dim=axes, norm="ortho").flatten(axes[0])


def unit(z: Tensor) -> Tensor:
    return torch.complex(*unit_magnitude(Pair(z.real, z.imag)))


def bins(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2 + 1)


def mirrored(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of the stored bins: which are their own mirror image, and whether the mirror is stored."""
    stored = list(product(*(range(n) for n in bins(shape))))
    other = [tuple(-i % n for i, n in zip(k, shape, strict=True)) for k in stored]
    own = [a == b for a, b in zip(stored, other, strict=True)]
    return torch.tensor(own), torch.tensor([b in set(stored) for b in other])


@pytest.mark.parametrize("length", [15, 16])
def test_the_model_binds_over_the_line(length: int) -> None:
    x = randn(7, length)
    found = spectra.spectrum(x)
    torch.testing.assert_close(torch.complex(*found), transform(x, (length,)))
    torch.testing.assert_close(spectra.from_spectrum(found, length), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_keeps_lengths(shape: tuple[int, ...]) -> None:
    x = randn(7, math.prod(shape))
    z = transform(x, shape)
    count = torch.where(mirrored(shape)[1], 1.0, 2.0).double()  # a pair stored once counts twice
    torch.testing.assert_close(z.abs().square() @ count, x.square().sum(1))
    torch.testing.assert_close(inverse(z, shape), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_of_spectra_is_a_circular_convolution(shape: tuple[int, ...]) -> None:
    a, b = randn(math.prod(shape)), randn(math.prod(shape), seed=1)
    found = inverse(transform(a, shape) * transform(b, shape), shape)
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
    line = inverse(transform(a, (15,)) * transform(b, (15,)), (15,))
    scattered = [torch.empty_like(x).index_copy(0, order, x) for x in (a, b)]
    first, second = (transform(x, (3, 5)) for x in scattered)
    torch.testing.assert_close(inverse(first * second, (3, 5))[order], line)


@pytest.mark.parametrize(("shape", "real"), [((16,), 2), ((4, 4), 4), ((2, 2, 4), 8), ((15,), 1)])
def test_what_differs_is_the_number_of_real_bins(shape: tuple[int, ...], real: int) -> None:
    """2 for each even side: keys there are +1 or -1, without gradient and without position."""
    own, _ = mirrored(shape)
    assert int(own.sum()) == real
    x = randn(5, math.prod(shape)).requires_grad_()
    key = unit(transform(x, shape)).real[:, own]
    torch.testing.assert_close(key.abs(), torch.ones(5, real, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((key * randn(5, real, seed=2)).sum(), x)
    assert gradient.abs().max().item() < 1e-12
    if len(shape) == 1:
        rates = torch.tensor(spectral_rates(*shape, 1, 1.0))
        assert bool((rates[own] == 0).all())
        assert bool((rates[~own] != 0).all())


@pytest.mark.parametrize(("shape", "stored"), [((64,), 33), ((8, 8), 40), ((4, 4, 4), 48)])
def test_what_is_stored_grows_with_the_dimension(shape: tuple[int, ...], stored: int) -> None:
    assert transform(randn(64), shape).numel() == stored
    if len(shape) == 1:
        memory = Memory(config(heads=1, width=64, binding="hrr"))
        assert memory.channels == stored
        assert memory.state_numbers() == 2 * stored


@pytest.mark.parametrize("shape", [(16,), (4, 4)])
def test_without_the_projection_a_linear_map_absorbs_the_transform(shape: tuple[int, ...]) -> None:
    weight, x = randn(16, 16), randn(9, 16, seed=1)
    columns = transform(weight.T, shape)  # F W, column by column
    torch.testing.assert_close(transform(x @ weight.T, shape), x.to(columns.dtype) @ columns)
    # with it, no linear map does: twice the input is the same key
    torch.testing.assert_close(unit(transform(2 * x, shape)), unit(transform(x, shape)))


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


@pytest.mark.parametrize("shape", [(16,), (4, 4)])
def test_binding_to_a_unit_key_keeps_lengths_and_is_undone_by_its_conjugate(
    shape: tuple[int, ...],
) -> None:
    keys, v = unit(transform(randn(3, 16), shape)), randn(3, 16, seed=1)
    bound = keys * transform(v, shape)
    torch.testing.assert_close(inverse(bound, shape).norm(dim=1), v.norm(dim=1))
    torch.testing.assert_close(inverse(keys.conj() * bound, shape), v)
