"""docs/theory.md, section 6: the delta rule memory of brain-v2."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.brain_v2.episodic import (
    CHUNK,
    EpisodicMemory,
    chunk_delta_rule,
    delta_rule_step,
)
from tests.models.brain_v2.parts import awake, config


def randn(*shape: int, seed: int = 0) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=make)


def unit_keys(count: int, width: int, seed: int = 0) -> Tensor:
    """(1, 1, N, d)"""
    return F.normalize(randn(1, 1, count, width, seed=seed), dim=-1)


def written(k: Tensor, v: Tensor, alpha: float, beta: float, *, delta: bool = True) -> Tensor:
    """The state (1, 1, d, d) after all pairs (1, 1, N, d) are written in order."""
    ones = torch.ones(k.shape[:3], dtype=torch.float64)
    log_alpha = math.log(alpha) * ones
    return chunk_delta_rule(k, k, v, log_alpha, beta * ones, delta=delta)[1]


def test_a_write_replaces_a_share_beta_of_what_its_key_reads() -> None:
    k, v = unit_keys(9, 16), randn(1, 1, 9, 16, seed=1)
    alpha, beta = 0.9, 0.7
    before, after = written(k[:, :, :8], v[:, :, :8], alpha, beta), written(k, v, alpha, beta)
    key, value = k[:, :, 8:], v[:, :, 8:]
    torch.testing.assert_close(key @ after, (1 - beta) * alpha * (key @ before) + beta * value)
    # what a key at a right angle reads only fades
    other = randn(1, 1, 1, 16, seed=2)
    other = other - (other @ key.mT) * key
    torch.testing.assert_close(other @ after, alpha * (other @ before))
    # a full write reads back whole, whatever was there
    torch.testing.assert_close(key @ written(k, v, alpha, 1.0), value)


def test_repeated_writes_converge_to_a_share_of_the_value_that_decay_sets() -> None:
    alpha, beta, times = 0.95, 0.5, 60
    k, v = unit_keys(1, 8).expand(-1, -1, times, -1), randn(1, 1, 1, 8, seed=1)
    found = k[:, :, :1] @ written(k, v.expand(-1, -1, times, -1), alpha, beta)
    torch.testing.assert_close(found, beta / (1 - alpha * (1 - beta)) * v)


@pytest.mark.parametrize(("alpha", "beta"), [(0.9, 0.3), (1.0, 0.99)])
def test_the_transition_has_eigenvalues_between_zero_and_one(alpha: float, beta: float) -> None:
    k, ones = unit_keys(1, 6), torch.ones(1, 1, 1, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64).view(1, 1, 6, 6)
    zero = torch.zeros(1, 1, 1, 6, dtype=torch.float64)
    _, moved = delta_rule_step(k, k, zero, math.log(alpha) * ones, beta * ones, eye)
    expected = torch.tensor([alpha * (1 - beta), *[alpha] * 5], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(moved[0, 0]), expected)


def test_the_gates_of_the_model_stay_inside() -> None:
    memory = EpisodicMemory(config())
    memory.finish_initialisation()
    awake(memory).double()
    log_alpha, beta = memory.gates(3 * randn(2, 40, 16))
    assert bool((log_alpha < 0).all())
    assert bool(((beta > 0) & (beta < 1)).all())
    k = memory.keys(randn(2, 40, 16))[1]
    torch.testing.assert_close(k.norm(dim=-1), torch.ones_like(k[..., 0]))


def test_each_write_brings_the_state_nearer_to_every_map_that_explains_it() -> None:
    width, beta = 12, 0.6
    truth = randn(1, 1, width, width, seed=3)
    k = unit_keys(40, width)
    state, ones = torch.zeros_like(truth), torch.ones(1, 1, 1, dtype=torch.float64)
    for t in range(40):
        key = k[:, :, t : t + 1]
        error = (key @ (truth - state)).square().sum()
        before = (truth - state).square().sum()
        _, state = delta_rule_step(key, key, key @ truth, 0 * ones, beta * ones, state)
        after = (truth - state).square().sum()
        torch.testing.assert_close(after, before - beta * (2 - beta) * error)


def equicorrelated(count: int, width: int, c: float) -> Tensor:
    """Unit keys (1, 1, N, d), N < d, every two of which have the product c."""
    k = torch.zeros(1, 1, count, width, dtype=torch.float64)
    k[..., 0] = math.sqrt(c)
    k[0, 0, :, 1 : count + 1] = math.sqrt(1 - c) * torch.eye(count, dtype=torch.float64)
    return k


@pytest.mark.parametrize("c", [0.3, 0.6])
def test_correlated_keys_drown_hebb_and_not_the_delta_rule(c: float) -> None:
    width, found, g = 400, {}, 1 - c
    for count in (20, 60):
        k, v = equicorrelated(count, width, c), randn(1, 1, count, width, seed=1)
        for delta in (False, True):
            read = k @ written(k, v, 1.0, 1.0, delta=delta)
            found[delta, count] = F.cosine_similarity(read, v, dim=-1)[0, 0]
        hebb = 1 / math.sqrt(1 + (count - 1) * c * c)
        assert found[False, count].mean().item() == pytest.approx(hebb, abs=0.03)
        law = g / math.sqrt(g * g + c * (1 + g * g) / (2 - c))
        middle = found[True, count][count // 2 - 3 : count // 2 + 3].mean().item()
        assert middle == pytest.approx(law, abs=0.04)
        assert found[True, count][-1].item() == pytest.approx(1.0)  # the last one, whole
    assert found[True, 60].mean() > found[False, 60].mean()


def test_independent_keys_are_all_learned_by_repetition_and_never_by_hebb() -> None:
    count, width, times = 6, 16, 300
    k, v = unit_keys(count, width), randn(1, 1, count, width, seed=1)
    many = [t.repeat(1, 1, times, 1) for t in (k, v)]
    torch.testing.assert_close(k @ written(*many, 1.0, 0.9), v)  # type: ignore[misc]
    hebb = k @ written(*many, 1.0, 0.9, delta=False)  # type: ignore[misc]
    assert F.cosine_similarity(hebb, v, dim=-1).min().item() < 0.97


@pytest.mark.parametrize("length", [1, CHUNK, 2 * CHUNK + 21])
def test_the_chunked_form_is_the_recurrence(length: int) -> None:
    q, k = unit_keys(length, 8), unit_keys(length, 8, seed=1)
    v = randn(1, 1, length, 8, seed=2)
    log_alpha = -0.2 * randn(1, 1, length, seed=3).abs()
    beta = randn(1, 1, length, seed=4).sigmoid()
    state = first = randn(1, 1, 8, 8, seed=5)
    outs = []
    for t in range(length):
        now = [x[:, :, t : t + 1] for x in (q, k, v, log_alpha, beta)]
        out, state = delta_rule_step(*now, state)
        outs.append(out)
    found, last = chunk_delta_rule(q, k, v, log_alpha, beta, first)
    torch.testing.assert_close(found, torch.cat(outs, 2))
    torch.testing.assert_close(last, state)
