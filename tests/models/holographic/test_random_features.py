"""Frequencies: the same everywhere, orthogonal, and of the lengths of their kernel."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.random_features import KernelName, frequencies
from tests.models.holographic.parts import config, randn

KERNELS: tuple[KernelName, ...] = get_args(KernelName)


def table(kernel: KernelName, plates: int, channels: int, coords: int = 8) -> Tensor:
    return frequencies(kernel, plates, channels, coords, torch.float64, torch.device("cpu"))


def test_frequencies_are_the_same_on_every_machine() -> None:
    """A checkpoint does not hold them: other numbers would be another model."""
    expected: dict[KernelName, list[float]] = {
        "gaussian": [-0.263415644910, 3.306834425071, -1.180420209602, -0.094029851758],
        "gravity": [-0.191495921005, 2.403977577174, -2.433727382370, -0.193865729443],
    }
    for kernel in KERNELS:
        found = table(kernel, 2, 1, 2).flatten()
        numbers = torch.tensor(expected[kernel], dtype=torch.float64)
        torch.testing.assert_close(found, numbers, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("kernel", KERNELS)
def test_plates_of_a_channel_are_orthogonal(kernel: KernelName) -> None:
    w = table(kernel, 8, 3).transpose(0, 1)  # (f, R, d)
    gram = w @ w.mT
    off = gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-12
    assert gram.diagonal(dim1=1, dim2=2).min() > 0


def test_lengths_are_those_of_normal_vectors_with_a_heavier_tail_for_gravity() -> None:
    squared = {kernel: table(kernel, 8, 1500).square().sum(-1).flatten() for kernel in KERNELS}
    for kernel in KERNELS:
        assert squared[kernel].mean().item() == pytest.approx(8, rel=0.03)
    # chi-squared of 8: variance 16; times a gamma of mean 1 and variance 1/4: 16 + (16 + 64) / 4
    assert squared["gaussian"].var().item() == pytest.approx(16, rel=0.1)
    assert squared["gravity"].var().item() == pytest.approx(36, rel=0.15)


def test_a_tied_start_makes_a_token_its_own_answer() -> None:
    for tied in (True, False):
        memory = Memory(config(phases="gaussian", plates=4, tied_start=tied)).double()
        torch.nn.init.normal_(
            memory.binding.qk_proj.weight, generator=torch.Generator().manual_seed(0)
        )
        memory.finish_initialisation()
        q, k = memory.binding.keys(randn(1, 5, 16))
        product = q.conj_times(k)
        same = math.isclose(product.re.mean().item(), 1.0, rel_tol=1e-12)
        assert same is tied
