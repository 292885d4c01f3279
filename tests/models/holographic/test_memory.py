"""The memory is interference: its capacity, its half-lives, and how positions rotate its phases.

Most tests here would pass no fake: a memory that does not superpose misses the capacity law.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.holographic.memory import Memory, read, store
from holo_cli.models.holographic.mixer import Holographic
from holo_cli.models.holographic.phasors import Pair, phasor, rotation_angles
from tests.models.holographic.parts import awake, config, randn

FORMS: list[dict[str, Any]] = [{}, {"phases": "learned"}, {"binding": "hrr"}]


@pytest.mark.parametrize("plates", [1, 4, 16])
def test_capacity_follows_the_law_of_interference(plates: int) -> None:
    """N values under random phases come back with cosine 1 / sqrt(1 + (N - 1) / R)."""
    items, channels = 16, 4096
    generator = torch.Generator().manual_seed(plates)
    shape = (1, 1, items, plates, channels)
    k = phasor(torch.rand(shape, generator=generator) * 2 * math.pi)
    v = Pair(*torch.randn(2, 1, 1, items, channels, generator=generator))
    held = store(k, v, torch.zeros(1, 1, items))[:, :, -1:].expand(-1, -1, items, -1, -1, -1)
    back = read(k, held)
    cosine = F.cosine_similarity(torch.cat(back, -1), torch.cat(v, -1), dim=-1).mean().item()
    assert cosine == pytest.approx(1 / math.sqrt(1 + (items - 1) / plates), abs=0.01)
    # what was stored is superposed, not kept apart: the state does not grow with the items
    assert held.shape[3:] == (plates, 2, channels)


def test_one_item_comes_back_whole_and_a_wrong_key_reads_noise() -> None:
    k = phasor(randn(1, 1, 1, 4, 512) * 10)
    wrong = phasor(randn(1, 1, 1, 4, 512, seed=1) * 10)
    v = Pair(randn(1, 1, 1, 512, seed=2), randn(1, 1, 1, 512, seed=3))
    held = store(k, v, torch.zeros(1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(torch.stack(read(k, held)), torch.stack(v))
    noise = torch.cat(read(wrong, held), -1)
    assert F.cosine_similarity(noise, torch.cat(v, -1), dim=-1).abs().item() < 0.15


@pytest.mark.parametrize("overrides", FORMS, ids=str)
@pytest.mark.parametrize("length", [64, 128, 256, 512])
def test_the_first_token_still_counts_at_the_end(overrides: dict[str, Any], length: int) -> None:
    memory = Memory(config(heads=4, width=32, **overrides))
    torch.nn.init.normal_(memory.binding.qk_proj.weight)
    memory.finish_initialisation()
    x, v = torch.randn(2, 1, length, 32, generator=torch.Generator().manual_seed(0))
    v = v.view(1, length, 4, 8).clone().requires_grad_()
    readout = (memory(x, v)[0, -1] * torch.randn(4, 8)).sum(1)  # readouts have one norm
    influence = torch.stack(
        [torch.autograd.grad(readout[h], v, retain_graph=True)[0][0, 0].norm() for h in range(4)]
    )
    per_recent = torch.autograd.grad(readout[3], v)[0][0, -1].norm()
    # the head of half-life 4096 has lost little; the one of half-life 4 has lost everything
    assert influence[3] > 0.05 * per_recent
    assert influence[0] < 1e-3 * influence[3]


def test_half_lives_are_spread_over_the_heads_from_short_to_long() -> None:
    memory = Memory(config(heads=4, width=32, half_life_min=4, half_life_max=4000)).double()
    memory.finish_initialisation()
    log_a, b = memory.gates(randn(1, 5, 32))
    lives = -math.log(2) / log_a[0]
    expected = torch.tensor([4.0, 40.0, 400.0, 4000.0], dtype=torch.float64)
    torch.testing.assert_close(lives, expected[:, None].expand(4, 5))
    torch.testing.assert_close(b, torch.full_like(b, 0.5))


def test_decay_and_input_gate_depend_on_the_token() -> None:
    memory = awake(Memory(config()))
    log_a, b = memory.gates(randn(1, 9, 16))
    assert (log_a < 0).all()
    assert ((b > 0) & (b < 1)).all()
    assert log_a.std(2).min() > 1e-3
    assert b.std(2).min() > 1e-3


def test_every_plate_has_phases_of_its_own_and_they_count() -> None:
    for phases in ("learned", "gaussian"):
        one, four = (awake(Memory(config(phases=phases, plates=r))) for r in (1, 4))
        q, k = four.binding.keys(randn(1, 6, 16))
        assert q.re.shape == (1, 2, 6, 4, 4)
        for r in range(1, 4):
            assert (k.re[:, :, :, r] - k.re[:, :, :, 0]).abs().max() > 0.1
        assert four.state_numbers() == 4 * one.state_numbers()


@pytest.mark.parametrize("overrides", FORMS, ids=str)
def test_only_distance_in_positions_matters(overrides: dict[str, Any]) -> None:
    """Rotating queries and keys alike leaves the angle between them to their distance."""
    memory = awake(Memory(config(**overrides)))
    q, k = memory.binding.keys(randn(1, 1, 16).expand(1, 12, 16))  # the same token everywhere
    assert (k.re[:, :, 0] - k.re[:, :, 5]).abs().max() > 0.1
    seen = [Pair(*(part[:, :, t] for part in q)) for t in range(12)]
    far = [seen[t].conj_times(Pair(*(part[:, :, t - 4] for part in k))) for t in range(4, 12)]
    for pair in far[1:]:
        torch.testing.assert_close(torch.stack(pair), torch.stack(far[0]))


def test_far_positions_are_rotated_exactly() -> None:
    rate = 0.123456789
    angle = rotation_angles((rate,), 10**7, 1, torch.float32, torch.device("cpu")).item()
    assert angle == pytest.approx(
        math.remainder(rate * 10**7, 2 * math.pi) % (2 * math.pi), abs=1e-5
    )


def test_no_tensor_of_training_is_quadratic_in_the_length() -> None:
    """Of everything that the forward pass of a layer makes, saved for the backward or not."""
    from torch.utils._python_dispatch import TorchDispatchMode

    length, largest = 4096, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                largest = max(largest, t.numel() if isinstance(t, Tensor) else 0)
            return out

    for overrides in (*FORMS, {"mixer": "fftconv"}, {"topology": True}):
        largest = 0
        mixer = Holographic(config(**overrides))
        mixer.finish_initialisation()
        x = torch.randn(1, length, 16, generator=torch.Generator().manual_seed(0))
        with Watch():
            mixer(x)[0].sum().backward()
        assert 0 < largest <= length * 512, overrides  # length^2 is 8 times that
