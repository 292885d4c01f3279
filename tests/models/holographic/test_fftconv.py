"""The long filter: FFT against the sum, and its modes step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic.fftconv import FFTConv, causal_convolution, smooth
from tests.models.holographic.parts import config, randn


@pytest.mark.parametrize("length", [1, 7, 64, 301])
def test_the_fft_is_the_causal_convolution(length: int) -> None:
    u, h = randn(2, 3, length), randn(3, length, seed=1)
    direct = torch.stack(
        [sum(h[:, t - s] * u[..., s] for s in range(t + 1)) for t in range(length)], dim=-1
    )
    torch.testing.assert_close(causal_convolution(u, h), direct)


def test_ffts_are_of_smooth_lengths_that_hold_all_of_a_convolution() -> None:
    for length in range(1, 400):
        padded = smooth(2 * length - 1)
        assert 2 * length - 1 <= padded
        assert 2**20 * 3**12 * 5**8 % padded == 0


def test_without_padding_the_future_wraps_in_and_the_causality_check_sees_it() -> None:
    def wrapped(u: Tensor, h: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(u) * torch.fft.rfft(h), n=u.shape[-1])

    h = randn(3, 32, seed=1)
    leaks = {}
    for form in (causal_convolution, wrapped):
        u = randn(1, 3, 32).requires_grad_()
        (grad,) = torch.autograd.grad(form(u, h)[..., 7].square().sum(), u)
        leaks[form] = (grad[..., 8:].abs().max() / grad.abs().max()).item()
    assert leaks[causal_convolution] < 1e-13  # rounding of the transform, no more
    assert leaks[wrapped] > 1e-2


@pytest.mark.parametrize("pieces", [[1] * 90, [90], [40, 1, 1, 48], [5, 45, 40]])
def test_the_modes_step_by_step_are_the_convolution(pieces: list[int]) -> None:
    conv = FFTConv(config(mixer="fftconv", fft_modes=6)).double()
    torch.nn.init.normal_(conv.qk_proj.weight)
    conv.finish_initialisation()
    x, v = randn(2, 90, 16), randn(2, 90, 2, 8, seed=1)
    state, position, out = conv.init_state(2), 0, []
    for piece in pieces:
        at = slice(position, position + piece)
        y, state = conv.step(x[:, at], v[:, at], state)
        out.append(y)
        position += piece
    torch.testing.assert_close(torch.cat(out, 1), conv(x, v), rtol=1e-9, atol=1e-9)


def test_filters_start_finite_and_reach_far() -> None:
    conv = FFTConv(config(mixer="fftconv"))
    conv.finish_initialisation()
    size = conv.filter(4096).abs().amax((0, 1))
    assert size.isfinite().all()
    assert size[2000:].max() > 1e-3 * size[0]
