"""The episodic memory: one example is enough, a second one replaces it, rows never share it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.brain_v2.episodic import EpisodicMemory, chunk_delta_rule, delta_rule_step
from tests.models.brain_v2.parts import awake, config, model, tokens

D = 8


def write(keys: Tensor, values: Tensor, *, delta: bool) -> Tensor:
    """The memory (D, D) after writing keys and values (T, D), each in full, nothing forgotten."""
    k, v = keys[None, None], values[None, None]
    keep, full = torch.zeros(1, 1, len(keys)), torch.ones(1, 1, len(keys))
    _, state = chunk_delta_rule(k, k, v, keep.to(k), full.to(k), delta=delta)
    return state[0, 0]


def unit(*shape: int, seed: int = 0) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(shape, generator=make, dtype=torch.float64), dim=-1)


def test_what_was_written_once_is_read_back() -> None:
    key, value = unit(1, D), unit(1, D, seed=1)
    for delta in (True, False):
        torch.testing.assert_close(key[0] @ write(key, value, delta=delta), value[0])


def test_a_second_value_replaces_the_first() -> None:
    key, first, second = unit(1, D), unit(1, D, seed=1), unit(1, D, seed=2)
    keys, values = key.expand(2, D), torch.cat((first, second))
    torch.testing.assert_close(key[0] @ write(keys, values, delta=True), second[0])
    torch.testing.assert_close(key[0] @ write(keys, values, delta=False), (first + second)[0])


def test_with_correlated_keys_delta_beats_hebb() -> None:
    """Keys with a large common part: Hebb's values pile up, delta's stay apart, and told again
    and again delta learns them all while Hebb only gets louder."""
    keys = F.normalize(unit(4, D) + unit(1, D, seed=5), dim=-1)
    values = unit(4, D, seed=1)
    errors = {}
    for times in (1, 100):
        for delta in (True, False):
            back = keys @ write(keys.repeat(times, 1), values.repeat(times, 1), delta=delta)
            errors[times, delta] = (back - values).norm(dim=1)
    assert errors[1, True][-1] < 1e-9  # the newest is there whole
    assert errors[1, True].mean() < 0.8 * errors[1, False].mean()
    assert errors[100, True].mean() < 0.05
    assert errors[100, False].mean() > 10


def test_forgetting_and_half_a_write() -> None:
    key, value = unit(1, D)[None, None], unit(1, D, seed=1)[None, None]
    keys, values = (x.expand(1, 1, 2, D) for x in (key, value))
    keep = torch.tensor([[[0.0, 0.5]]], dtype=torch.float64).clamp_min(1e-300).log()
    keep[..., 0] = 0.0
    write_all = torch.tensor([[[0.5, 0.0]]], dtype=torch.float64)
    o, _ = chunk_delta_rule(keys, keys, values, keep, write_all)
    torch.testing.assert_close(o[0, 0, 0], 0.5 * value[0, 0, 0])
    torch.testing.assert_close(o[0, 0, 1], 0.25 * value[0, 0, 0])


def inputs(length: int, heads: int = 3) -> list[Tensor]:
    """q, k, v (2, H, T, D), log alpha and beta (2, H, T)."""
    make = torch.Generator().manual_seed(4)
    shape = (2, heads, length)
    q, k, v = (torch.randn(*shape, D, generator=make, dtype=torch.float64) for _ in range(3))
    log_alpha = -0.3 * torch.rand(shape, generator=make, dtype=torch.float64)
    beta = torch.rand(shape, generator=make, dtype=torch.float64)
    return [t.requires_grad_() for t in (q, F.normalize(k, dim=-1), v, log_alpha, beta)]


def one_by_one(
    q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor, beta: Tensor, state: Tensor, delta: bool
) -> tuple[Tensor, Tensor]:
    out = []
    for t in range(q.shape[2]):
        state = log_alpha[:, :, t, None, None].exp() * state
        old = (k[:, :, t, None] @ state)[:, :, 0] if delta else torch.zeros_like(v[:, :, t])
        new = beta[:, :, t, None] * (v[:, :, t] - old)
        state = state + k[:, :, t, :, None] * new[:, :, None]
        out.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(out, 2), state


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("length", [1, 5, 63, 64, 65, 131])
def test_chunks_equal_the_recurrence(length: int, delta: bool) -> None:
    given = inputs(length)
    state = 0.1 * torch.randn(2, 3, D, D, dtype=torch.float64)
    y, last = chunk_delta_rule(*given, state, delta=delta)
    slow, end = one_by_one(*given, state, delta)
    torch.testing.assert_close(y, slow, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last, end, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad((y * weight).sum(), given),
        torch.autograd.grad((slow * weight).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_rows_never_share_a_memory() -> None:
    """What row 1 is told changes nothing for row 0, in training and from a state."""
    torch.manual_seed(0)
    part = EpisodicMemory(config(memory_heads=2))
    awake(part)
    u = torch.randn(2, 40, 16)
    other = u.clone()
    other[1] = torch.randn(40, 16)
    with torch.no_grad():
        assert torch.equal(part(u)[0][0], part(other)[0][0])
        _, state = part.step(u, part.init_state(2))
        _, changed = part.step(other, part.init_state(2))
    assert torch.equal(state.memory[0], changed.memory[0])
    assert not torch.equal(state.memory[1], changed.memory[1])


def test_nothing_is_remembered_from_one_evaluation_to_the_next() -> None:
    """The older system's memory was shared: the order of evaluations changed losses."""
    made = model(memory_every=1)
    first, second = tokens(2, 50), tokens(2, 50, seed=1)
    with torch.no_grad():
        alone = made(second)
        made(first)
        made.step(first, made.init_state(2))
        assert torch.equal(made(second), alone)


def test_the_memory_stays_finite_with_equal_keys_for_long() -> None:
    k = unit(1, D).float().expand(1, 1, 500, D)
    v = torch.randn(1, 1, 500, D, generator=torch.Generator().manual_seed(0))
    o, state = chunk_delta_rule(k, k, v, torch.zeros(1, 1, 500), torch.ones(1, 1, 500))
    torch.testing.assert_close(o, v, rtol=1e-4, atol=1e-4)  # always the newest
    assert state.abs().max() < 10


def test_memory_layers_and_heads() -> None:
    layers = [config(memory_every=3, layers=6).has_memory(layer) for layer in range(6)]
    assert layers == [False, False, True, False, False, True]
    assert not any(config(memory="none").has_memory(layer) for layer in range(6))
    assert config(heads=8).memory_head_count == 4
    assert config(heads=1).memory_head_count == 1
    assert config(memory_heads=5).memory_head_count == 5


def test_keys_have_length_one_and_gates_say_how_much() -> None:
    """What a layer hands its memory: directions to look under, shares to write and to keep."""
    torch.manual_seed(0)
    fresh = EpisodicMemory(config())
    fresh.finish_initialisation()
    u = 3 * torch.randn(2, 5, 16)
    q, k, _ = fresh.keys(u)
    for turned in (q, k):
        torch.testing.assert_close(turned.norm(dim=-1), torch.ones(turned.shape[:3]))
    log_alpha, beta = fresh.gates(u)
    torch.testing.assert_close(beta, torch.full_like(beta, 0.5))  # half of each token at first
    torch.testing.assert_close(log_alpha, torch.full_like(log_alpha, -0.001), rtol=1e-3, atol=0)
    awake(fresh)
    log_alpha, beta = fresh.gates(u)
    assert 0 < beta.min() < beta.max() < 1
    assert log_alpha.max() < 0


@pytest.mark.parametrize("delta", [True, False])
def test_one_position_is_the_same_as_a_chunk_of_one(delta: bool) -> None:
    q, k, v = torch.randn(3, 2, 3, 1, 5, dtype=torch.float64)
    k = F.normalize(k, dim=-1)
    log_alpha, beta = -torch.rand(2, 3, 1, dtype=torch.float64), torch.rand(2, 3, 1).double()
    state = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    one = delta_rule_step(q, k, v, log_alpha, beta, state, delta=delta)
    chunk = chunk_delta_rule(q, k, v, log_alpha, beta, state, delta=delta)
    for a, b in zip(one, chunk, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
