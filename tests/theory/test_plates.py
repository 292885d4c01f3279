"""docs/theory.md, section 1: what R plates hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.holographic.memory import read, store
from holo_cli.models.holographic.phasors import Pair, phasor


def random_keys(items: int, plates: int, channels: int, seed: int, heads: int = 1) -> Pair:
    """Independent uniform phases, (1, heads, items, plates, channels)."""
    make = torch.Generator().manual_seed(seed)
    shape = (1, heads, items, plates, channels)
    return phasor(2 * math.pi * torch.rand(shape, generator=make, dtype=torch.float64))


def random_values(items: int, channels: int, seed: int, heads: int = 1) -> Pair:
    make = torch.Generator().manual_seed(seed)
    shape = (2, 1, heads, items, channels)
    return Pair(*torch.randn(shape, generator=make, dtype=torch.float64))


def read_all(keys: Pair, values: Pair, log_a: Tensor | None = None) -> Pair:
    """Store all items in order, then read each from the last plates with its own key."""
    heads, items = keys.re.shape[1:3]
    if log_a is None:
        log_a = torch.zeros(1, heads, items, dtype=torch.float64)
    last = store(keys, values, log_a)[:, :, -1:]
    return read(keys, last.expand(-1, -1, items, -1, -1, -1))


def cosines(found: Pair, values: Pair) -> Tensor:
    """(heads, items)"""
    return F.cosine_similarity(torch.cat(found, -1), torch.cat(values, -1), dim=-1)[0]


@pytest.mark.parametrize("plates", [1, 3, 8])
def test_noise_of_a_reading_is_the_energy_of_the_other_items_over_the_plates(plates: int) -> None:
    keys, values = random_keys(6, plates, 20_000, 0), random_values(6, 20_000, 1)
    # items of very different energy: the statement asks nothing of the values
    values = Pair(*(part * torch.tensor([1, 2, 3, 4, 5, 6.0])[:, None] for part in values))
    found = read_all(keys, values)
    noise = sum((a - b).square() for a, b in zip(found, values, strict=True))
    energy = (values.re.square() + values.im.square()).mean(-1)
    expected = (energy.sum(-1, keepdim=True) - energy) / plates
    torch.testing.assert_close(torch.as_tensor(noise).mean(-1), expected, rtol=0.04, atol=0.0)


@pytest.mark.parametrize(("items", "plates"), [(4, 1), (16, 4), (40, 16)])
def test_cosine_and_its_scatter_are_those_of_the_law(items: int, plates: int) -> None:
    channels, heads = 64, 80
    found = cosines(
        read_all(
            random_keys(items, plates, channels, 0, heads),
            values := random_values(items, channels, 1, heads),
        ),
        values,
    )
    law = 1 / math.sqrt(1 + (items - 1) / plates)
    assert found.mean().item() == pytest.approx(law, abs=0.01)
    scatter = (1 - law**2) / math.sqrt(2 * channels)
    assert found.std(0).mean().item() == pytest.approx(scatter, rel=0.1)


def test_decay_replaces_the_number_of_items_by_a_sum_of_squared_weights() -> None:
    items, plates, a = 60, 4, 0.9
    values = random_values(items, 8192, 1)
    log_a = torch.full((1, 1, items), math.log(a), dtype=torch.float64)
    found = cosines(read_all(random_keys(items, plates, 8192, 0), values, log_a), values)[0]
    weight = a ** torch.arange(items - 1, -1, -1, dtype=torch.float64)
    others = weight.square().sum() - weight.square()
    law = (1 + others / (plates * weight.square())).rsqrt()
    torch.testing.assert_close(found, law, rtol=0.0, atol=0.03)
    newest = 1 / math.sqrt(1 + (1 / (1 - a * a) - 1) / plates)
    assert law[-1].item() == pytest.approx(newest, abs=1e-3)


def test_the_best_decay_for_an_age_bounds_the_noise_by_that_age() -> None:
    a = torch.linspace(0.001, 0.9999, 20_000, dtype=torch.float64)
    for age in (1, 5, 40):
        total = a ** (-2 * age) / (1 - a * a)  # noise + signal of an endless text, in items
        best = math.sqrt(age / (age + 1))
        assert a[total.argmin()].item() == pytest.approx(best, abs=1e-3)
        assert total.min().item() == pytest.approx((age + 1) * ((age + 1) / age) ** age, rel=1e-4)
        assert total.min().item() <= math.e * (age + 1)


def test_channels_buy_the_choice_among_candidates() -> None:
    items, plates, candidates, heads = 8, 4, 64, 40
    noise = (items - 1) / plates
    right = []
    for channels in (8, 64):
        values = random_values(candidates, channels, 1, heads)
        stored = Pair(*(part[:, :, :items] for part in values))
        found = read_all(random_keys(items, plates, channels, 0, heads), stored)
        score = torch.cat(found, -1) @ torch.cat(values, -1).mT
        right.append((score[0].argmax(-1) == torch.arange(items)).double().mean().item())
        bound = (candidates - 1) * 0.5 * math.erfc(math.sqrt(channels / (1 + 2 * noise)))
        assert 1 - right[-1] <= bound + 0.01
    assert right[0] < 0.8 < 0.99 < right[1]
