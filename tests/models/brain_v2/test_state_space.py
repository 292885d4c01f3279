"""The state space: chunks equal the recurrence, gradients are right, and it has a state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.layers import ssd
from holo_cli.models.brain_v2 import selective
from holo_cli.models.brain_v2.ssm import Scalar, Selective
from tests.models.brain_v2.parts import config, model, tokens

LENGTHS = [1, 7, 63, 64, 65, 130, 200]


def scalar_inputs(length: int, seed: int = 0, rate: float = 1.0) -> list[Tensor]:
    """x (2, T, 3, 4), b and c (2, T, 6), log a (2, T, 3)."""
    make = torch.Generator().manual_seed(seed)
    shapes = [(2, length, 3, 4), (2, length, 6), (2, length, 6)]
    inputs = [torch.randn(s, generator=make, dtype=torch.float64) for s in shapes]
    inputs.append(-rate * torch.rand(2, length, 3, generator=make, dtype=torch.float64))
    return [t.requires_grad_() for t in inputs]


def recurrence(x: Tensor, b: Tensor, c: Tensor, log_a: Tensor, state: Tensor) -> Any:
    """`ssd.scan` one position after the other; state (B, N, H, P)."""
    out = []
    for t in range(x.shape[1]):
        state = state * log_a[:, t].exp()[:, None, :, None] + b[:, t, :, None, None] * x[:, t, None]
        out.append((state * c[:, t, :, None, None]).sum(1))
    return torch.stack(out, 1), state


def selective_inputs(length: int, seed: int = 0) -> list[Tensor]:
    """dt and v (2, T, 5), b and c (2, T, 4), A (5, 4)."""
    make = torch.Generator().manual_seed(seed)
    shapes = [(2, length, 5), (2, length, 5), (2, length, 4), (2, length, 4), (5, 4)]
    inputs = [torch.randn(s, generator=make, dtype=torch.float64) for s in shapes]
    for positive in (0, 4):
        inputs[positive] = inputs[positive].abs() + 0.01
    return [t.requires_grad_() for t in inputs]


def selective_recurrence(
    dt: Tensor, v: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor
) -> Any:
    out = []
    for t in range(dt.shape[1]):
        state = (-dt[:, t, :, None] * rate).exp() * state + v[:, t, :, None] * b[:, t, None]
        out.append((state * c[:, t, None]).sum(2))
    return torch.stack(out, 1), state


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_equal_the_recurrence(length: int) -> None:
    inputs = scalar_inputs(length)
    state = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        for before in (None, state):
            y, last = ssd.scan(*inputs, before)
            slow, end = recurrence(*inputs, torch.zeros_like(state) if before is None else before)
            torch.testing.assert_close(y, slow, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(last, end, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("length", [1, 64, 130])
def test_the_written_backward_pass_is_the_recurrences(length: int) -> None:
    inputs = scalar_inputs(length)
    state = torch.zeros(2, 6, 3, 4, dtype=torch.float64)
    weight = torch.randn(2, length, 3, 4, dtype=torch.float64)
    fast = torch.autograd.grad((ssd.scan(*inputs)[0] * weight).sum(), inputs)
    slow = torch.autograd.grad((recurrence(*inputs, state)[0] * weight).sum(), inputs)
    for name, a, b in zip(("x", "b", "c", "log a"), fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)


def test_gradcheck_of_both_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two chunks and a part of one."""
    monkeypatch.setattr(ssd, "CHUNK", 3)
    monkeypatch.setattr(ssd, "TILE", 1)  # a chunk at a time
    assert torch.autograd.gradcheck(lambda *given: ssd.scan(*given)[0], scalar_inputs(7))
    monkeypatch.setattr(selective, "CHUNK", 3)
    assert torch.autograd.gradcheck(lambda *given: selective.scan(*given)[0], selective_inputs(7))


@pytest.mark.parametrize("length", [1, 32, 33, 70])
def test_the_selective_scan_equals_its_recurrence(length: int) -> None:
    inputs = selective_inputs(length)
    state = torch.randn(2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        for before in (None, state):
            y, last = selective.scan(*inputs, before)
            zero = torch.zeros_like(state)
            slow, end = selective_recurrence(*inputs, zero if before is None else before)
            torch.testing.assert_close(y, slow, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(last, end, rtol=1e-11, atol=1e-11)
    weight = torch.randn(2, length, 5, dtype=torch.float64)
    fast = torch.autograd.grad((selective.scan(*inputs)[0] * weight).sum(), inputs)
    slow = torch.autograd.grad((selective_recurrence(*inputs, zero)[0] * weight).sum(), inputs)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_fast_decays_give_neither_nan_nor_infinity() -> None:
    """exp(G_t - G_s) is never raised above 1, however fast a state fades."""
    x, b, c, log_a = (t.detach().float().requires_grad_() for t in scalar_inputs(150, rate=2000.0))
    y, _ = ssd.scan(x, b, c, log_a)
    y.square().sum().backward()
    for t in (y, x.grad, b.grad, c.grad, log_a.grad):
        assert t is not None
        assert t.isfinite().all()


def test_without_decay_nothing_fades() -> None:
    x, b, c, _ = scalar_inputs(300)
    y, _ = ssd.scan(x, b, c, torch.zeros(2, 300, 3, dtype=torch.float64))
    whole = torch.einsum("btn,bsn,bshp->bthp", c, b, x * 1.0)[:, -1]
    torch.testing.assert_close(y[:, -1], whole)


def test_states_are_float32_under_autocast() -> None:
    for ssm in ("scalar", "selective"):
        part = model(ssm=ssm).layers()[0].mixer.ssm.float()
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            for length in (1, 5):
                u = torch.randn(2, length, 16, dtype=torch.bfloat16)
                _, state = part.step(u, part.init_state(2))
                assert state.state.dtype == torch.float32


@pytest.mark.parametrize("ssm", ["scalar", "selective"])
def test_the_first_token_reaches_the_last_position_through_the_state_alone(ssm: str) -> None:
    """No attention, no memory, no convolution: 500 positions later it still makes a difference."""
    made = model(ssm=ssm, memory="none", attention_every=0, conv=0, context=512)
    given = tokens(1, 500)
    changed = given.clone()
    changed[0, 0] = (given[0, 0] + 1) % 29
    with torch.no_grad():
        assert (made(given) - made(changed))[0, -1].abs().max() > 1e-9
        for block in made.layers():  # the same without what the state passes on
            block.mixer.ssm.out.weight.zero_()
        assert (made(given) - made(changed))[0, -1].abs().max() == 0


def test_half_lives_at_the_start_are_spread_over_heads() -> None:
    part = Scalar(config(heads=4, width=32))
    part.finish_initialisation()
    lives = math.log(2) / part.rates(torch.zeros(1, 1, 32))[0, 0]
    wanted = torch.logspace(math.log10(math.log(2) / 0.1), math.log10(math.log(2) / 0.001), 4)
    torch.testing.assert_close(lives, wanted, rtol=1e-4, atol=0)


def test_the_selective_form_starts_as_mamba_does() -> None:
    torch.manual_seed(0)
    part = Selective(config(heads=8, width=256, ssm="selective"))
    part.finish_initialisation()
    rate = part.rate()
    torch.testing.assert_close(rate[0], torch.arange(1.0, 9.0).repeat(2))
    assert part.log_rate.ndim == 1  # so that no optimizer lets it decay
    dt = part.steps(torch.zeros(1, 1, 256))[0, 0]
    assert 0.001 <= dt.min() < 0.002
    assert 0.05 < dt.max() <= 0.1
    assert abs(dt.log().mean().exp().item() / 0.01 - 1) < 0.3  # log-uniform


@pytest.mark.parametrize("ssm", ["scalar", "selective"])
def test_the_state_has_the_same_size_after_any_length(ssm: str) -> None:
    made = model(ssm=ssm, attention_every=0)
    assert made.context_limit is None
    assert made.state_bytes(10) == made.state_bytes(100_000)
    with torch.no_grad():
        _, state = made.step(tokens(1, 150), made.init_state(1))
    assert state.nbytes() == made.state_bytes(150)


def test_nothing_kept_for_the_backward_pass_grows_with_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what was given is kept: no tile of pairs, no state."""
    x, b, c, log_a = scalar_inputs(192)
    kept: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        ssd.scan(x, b, c, log_a)
    assert {id(t) for t in kept} <= {id(t) for t in (x, b, c, log_a)} | set()
