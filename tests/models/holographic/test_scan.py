"""The recurrence of the holographic memory: chunked forms against one token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic.scan import CHUNK, decayed_sum
from tests.models.holographic.parts import randn


def one_by_one(log_a: Tensor, x: Tensor, state: Tensor) -> Tensor:
    y = []
    for t in range(x.shape[1]):
        state = log_a[:, t, None].exp() * state + x[:, t]
        y.append(state)
    return torch.stack(y, 1)


@pytest.mark.parametrize("length", [1, 63, CHUNK, CHUNK + 1, 200, CHUNK * CHUNK + 70])
def test_chunks_and_chunks_of_chunks_are_the_recurrence(length: int) -> None:
    log_a = -randn(2, length).exp() * 0.1
    x, state = randn(2, length, 3, seed=1), randn(2, 3, seed=2)
    expected = one_by_one(log_a, x, state)
    torch.testing.assert_close(decayed_sum(log_a, x, state), expected, rtol=1e-10, atol=1e-10)
    fresh = one_by_one(log_a, x, torch.zeros_like(state))
    torch.testing.assert_close(decayed_sum(log_a, x), fresh, rtol=1e-10, atol=1e-10)


def test_the_recurrence_has_the_right_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo_cli.models.holographic.scan.CHUNK", 4)  # three levels
    log_a = (-randn(1, 19).exp() * 0.1).requires_grad_()
    x, state = randn(1, 19, 2, seed=1).requires_grad_(), randn(1, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(decayed_sum, (log_a, x, state))


def test_instant_forgetting_gives_no_nan_and_forgets() -> None:
    """Cumulative products of such decays are 0 after a token: dividing by them would be NaN."""
    log_a = torch.full((1, 130), -1e4).requires_grad_()
    x = torch.randn(1, 130, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = decayed_sum(log_a, x)
    torch.testing.assert_close(y, x)
    y.sum().backward()
    assert log_a.grad is not None
    assert x.grad is not None
    assert log_a.grad.isfinite().all()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_a_long_half_life_is_kept_in_float32() -> None:
    length = 8192
    log_a = torch.full((1, length), -math.log(2) / 4096)
    x = torch.zeros(1, length, 1)
    x[0, 0] = 1.0
    y = decayed_sum(log_a, x)[0, :, 0]
    assert y[4096].item() == pytest.approx(0.5, rel=1e-4)
    assert y[8191].item() == pytest.approx(0.25, rel=1e-3)
