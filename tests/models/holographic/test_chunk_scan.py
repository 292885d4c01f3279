"""`decayed_sum` against a loop over tokens, `chunk_scan` against the plain form: with gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic import chunk_scan as module
from holo_cli.models.holographic.chunk_scan import CHUNK, chunk_scan, decayed_sum, spans
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.key_transforms import SpectrumTransform
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.phasors import Pair, phasor
from holo_cli.models.holographic.spectra import spectrum, unit_magnitude
from tests.models.holographic.parts import randn

SMALL: dict[str, Any] = {
    "vocab_size": 29, "layers": 1, "heads": 2, "width": 16, "phases": "learned", "plates": 2,
}  # fmt: skip
BINDINGS: list[dict[str, Any]] = [
    {},
    {"plates": 1},
    {"plates": 3, "rope_fraction": 0.5},
    {"phases": "gaussian", "plates": 3, "phase_coords": 4, "rope_fraction": 0.5},
    {"binding": "hrr"},
    {"binding": "hrr", "plates": 1, "width": 24},
]


def make(**overrides: Any) -> Memory:
    memory = Memory(Config(**{**SMALL, **overrides})).double()
    memory.finish_initialisation()
    for seed, p in enumerate(memory.parameters()):
        p.data += 0.4 * randn(*p.shape, seed=seed)
    return memory


def inputs(memory: Memory, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    config = memory.config
    x, v = randn(rows, length, config.width), randn(rows, length, config.heads, config.head_width)
    state = randn(*memory.init_state(rows).shape, seed=2)
    if config.binding == "hrr":  # only spectra of real heads are ever there
        _, k = memory.binding.keys(randn(rows, 1, config.width, seed=3))
        state = torch.stack((k.re[:, :, 0], k.im[:, :, 0]), dim=2).detach()
    return x.requires_grad_(), v.requires_grad_(), state.requires_grad_()


# -- the recurrence


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
    monkeypatch.setattr(module, "CHUNK", 4)  # three levels
    log_a = (-randn(1, 19).exp() * 0.1).requires_grad_()
    x, state = randn(1, 19, 2, seed=1).requires_grad_(), randn(1, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(decayed_sum, (log_a, x, state))


def test_instant_forgetting_gives_no_nan() -> None:
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


# -- the memory


@pytest.mark.parametrize("overrides", BINDINGS, ids=str)
@pytest.mark.parametrize(
    ("rows", "length", "buffer"),
    [
        (2, 1, 1 << 16),
        (2, 63, 1 << 16),
        (1, 200, 1 << 16),  # three chunks in one block, and a rest
        (3, 2 * CHUNK, 1),  # a block for each chunk of each row
        (3, 150, 1 << 11),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(
    overrides: dict[str, Any], rows: int, length: int, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPU_BUFFER", buffer)
    memory = make(**overrides)
    given = (*inputs(memory, rows, length), *memory.parameters())
    found = []
    for form in (memory._run, memory.plain):
        y, after = form(*given[:3])
        loss = (y * randn(*y.shape, seed=4)).sum() + (after * randn(*after.shape, seed=5)).sum()
        found.append((y, after, *torch.autograd.grad(loss, given)))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "overrides", [{}, {"binding": "hrr"}, {"phases": "gaussian", "phase_coords": 3}], ids=str
)
def test_gradcheck(overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(module, "CPU_BUFFER", 64)
    memory = make(width=4, heads=1, **overrides)
    transform = memory.binding.transform
    qk = randn(2, transform.maps, 1, transform.inputs, 1, 11)
    v, state = randn(1, 4, 1, 11, seed=1), randn(1, 1, 2, 2, transform.channels, seed=2)
    log_a, b = -randn(1, 1, 11, seed=3).exp(), randn(1, 1, 11, seed=4).sigmoid()
    given = [t.requires_grad_() for t in (qk, v, log_a, b, state)]
    if "phases" in overrides:
        given.append(randn(2, 1, transform.channels, seed=5).requires_grad_())

    def scan(
        qk: Tensor, v: Tensor, log_a: Tensor, b: Tensor, state: Tensor, offset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return chunk_scan(qk, v, log_a, b, state, transform, offset)

    assert torch.autograd.gradcheck(scan, given)


def test_forgetting_at_once_and_never() -> None:
    """Decays whose cumulative products are 0, and inputs that do not come in."""
    memory = make()
    transform = memory.binding.transform
    qk, v = randn(2, 2, 2, transform.inputs, 1, 100), randn(2, 8, 1, 100, seed=1)
    log_a = torch.full((2, 1, 100), -1e4, dtype=torch.float64)
    b = torch.ones_like(log_a)
    b[:, :, 50:] = 0.0
    given = [t.requires_grad_() for t in (qk, v, log_a, b)]
    y, after = chunk_scan(qk, v, log_a, b, None, transform)
    grads = torch.autograd.grad(y.square().sum() + after.square().sum(), given)
    assert y[:, 52:].abs().max() < 1e-3  # nothing is left, but eps keeps the norm finite
    assert all(g.isfinite().all() for g in (y, *grads))


@pytest.mark.parametrize("length", [130, 1000])
def test_half_precision_inputs_are_computed_in_full(length: int) -> None:
    memory = make(half_life_min=2.0, half_life_max=2000.0)
    x, v, _ = inputs(memory, 2, length)
    wide = memory.plain(x, v, None)[0]
    memory = memory.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = memory(x.float(), v.bfloat16())
    assert y.dtype == torch.bfloat16
    # bfloat16 phases are off by some hundredths; sums over positions must add nothing to that
    error = (y - wide).square().mean(dim=(0, 2, 3)).sqrt()
    assert error[-50:].mean() < 2 * error[:50].mean() + 0.02
    assert error.mean() < 0.1


def test_gradients_of_decays_do_not_drift_with_the_length() -> None:
    """They are differences of sums: added up over all positions, rounding would pile up."""
    memory = make(half_life_min=4.0, half_life_max=4.0)
    x, v, _ = inputs(memory, 1, 2000)
    loss_weight = randn(1, 2000, 2, 8, seed=7)
    (exact,) = torch.autograd.grad((memory(x, v) * loss_weight).sum(), memory.gates_bias)
    single = memory.float()
    y = single(x.float(), v.float())
    (got,) = torch.autograd.grad((y * loss_weight.float()).sum(), single.gates_bias)
    torch.testing.assert_close(got.double(), exact, rtol=2e-4, atol=2e-4 * exact.abs().max().item())


@pytest.mark.parametrize("phases", ["learned", "gaussian"])
def test_what_is_kept_for_the_backward_pass_is_not_the_plates(phases: str) -> None:
    """Of 4 plates over 2,048 positions only those at block starts; at fixed frequencies no phases
    either."""
    memory = make(plates=4, width=32, phases=phases).float()
    x, v = torch.randn(1, 2048, 32), torch.randn(1, 2048, 2, 16)
    kept = 0

    def keep(t: Tensor) -> Tensor:
        nonlocal kept
        kept += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        memory(x, v)
    plates = 2048 * memory.state_numbers()
    # of queries and keys: R C / 2 phases each, or H points of 8 coordinates
    projections = plates if phases == "learned" else 2048 * 2 * 2 * 8
    assert kept < projections + 8 * x.numel()


def test_spans_cover_everything_once_and_in_order() -> None:
    for rows, length, most in ((1, 1, 1), (5, 333, 1), (5, 333, 3000), (2, 1000, 10**6)):
        seen = torch.zeros(rows, length)
        for group in spans(rows, length, 10, most):
            position = 0
            for span in group:
                assert span.positions.start == position
                position = span.positions.stop
                seen[span.rows, span.positions] += 1
                assert 10 * span.chunks * span.length * (span.rows.stop - span.rows.start) <= max(
                    most, 10 * CHUNK
                )
            assert position == length
        assert (seen == 1).all()


@pytest.mark.parametrize("length", [4, 6, 7, 12])
def test_constant_matrices_are_the_fft(length: int) -> None:
    transform = SpectrumTransform(1, length, (0.0,) * (length // 2 + 1))
    x = randn(length, 5)
    to_channels, to_head = transform.matrices(x)
    torch.testing.assert_close(to_channels @ x, torch.cat(spectrum(x.T), dim=1).T)
    torch.testing.assert_close(to_head @ (to_channels @ x), x)


def test_the_gradient_of_spectral_lines_below_the_floor_is_right() -> None:
    """Lines that are not blown up to magnitude 1 change in magnitude as well as in phase."""
    transform = SpectrumTransform(1, 6, (0.3, 0.0, 0.7, 0.0))
    raw = torch.zeros(1, 6, 2, dtype=torch.float64)
    raw[0, :, 1] = randn(6)
    raw[0, 0, 0] = 1e-4  # all of its lines are below
    raw.requires_grad_()
    angles = transform.angles(0, 2, raw)
    head, plates = (Pair(*randn(2, 1, 4, 2, seed=s)) for s in (1, 2))
    key = unit_magnitude(spectrum(raw.mT))
    rotated = Pair(key.re.mT, key.im.mT).times(phasor(angles))
    bound = rotated.times(head)
    (expected,) = torch.autograd.grad(
        (bound.re * plates.re).sum() + (bound.im * plates.im).sum(), raw
    )
    with torch.no_grad():
        buffers = transform.buffers((), 2, raw, None)
        buffers.raw.copy_(raw)
        both = transform.keys(buffers, angles)
        for part in (0, 1):
            keys = both.part(part)
            assert keys.scale is not None
            assert (keys.scale[..., 0] >= 999).all()
            product = keys.pair.conj_times(plates)
            transform.vjp(part, buffers, keys, angles, head, product, plates)
            torch.testing.assert_close(buffers.grad[part], expected)
